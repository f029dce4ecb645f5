"""The table of decoders, and opening a video with one of them.

The table imports no decoder, so that the command line and its help pages can read it. To add a
decoder, write a module with a :class:`~tspcli.video.source.VideoSource` and add an entry here. From
outside the package, :class:`~tspcli.core.extension_table.Table` says how; the entry travels to the
decode processes, which import its module by name.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tspcli.core.extension_table import Table
from tspcli.core.text import first_line
from tspcli.errors import DependencyError, UsageError, VideoError

if TYPE_CHECKING:
    from tspcli.video.source import VideoSource

FINAL_REASONS = frozenset({"missing", "unreadable", "empty"})
"""Reasons for a failure that no other decoder can change."""


@dataclass(frozen=True)
class DecoderEntry:
    """One decoder.

    Attributes:
        name: What the user calls it.
        module, source: The module and the class in it, a subclass of ``VideoSource``.
        package: The package that it needs.
        summary: What it is, in one line.
        remedy: How to get the package.
        needs: What else it needs, where the package is installed and still cannot be loaded.
        in_auto: Whether ``auto`` uses it.
        on_gpu: Whether it decodes on a GPU. Its source is told which one, and the decoders of
            ``auto`` are tried after it.
        threads: How many threads of the process that encodes on that GPU decode with it, beside
            decode processes that use the decoders of ``auto``; 0 uses it in the processes. Its
            source then has a :attr:`~tspcli.video.source.VideoSource.surface`.
    """

    name: str
    module: str
    source: str
    package: str
    summary: str
    remedy: str
    needs: str = ""
    in_auto: bool = False
    on_gpu: bool = False
    threads: int = 0


# The order is that of `auto`: fastest first, by the figures in docs/notes/decoders.md. All of them
# give the same pixels for 4:2:0.
DECODERS: Table[DecoderEntry] = Table(
    "tspcli.decoders",
    (
        DecoderEntry(
            name="pyav",
            module="tspcli.video.decoders.pyav_source",
            source="PyavSource",
            package="av",
            summary="FFmpeg through PyAV; also reads what every file says about itself",
            remedy="pip install av",
            in_auto=True,
        ),
        DecoderEntry(
            name="decord",
            module="tspcli.video.decoders.decord_source",
            source="DecordSource",
            package="decord",
            summary="an older FFmpeg, which reads some files that PyAV cannot",
            remedy="pip install decord (x86-64 Linux and Windows); PyAV is used without it",
            in_auto=True,
        ),
        # Not in `auto`: it brings torch into every decode process, seconds and hundreds of
        # megabytes each.
        DecoderEntry(
            name="torchcodec",
            module="tspcli.video.decoders.torchcodec_source",
            source="TorchcodecSource",
            package="torchcodec",
            summary="torchcodec on the CPU, with the system's FFmpeg",
            remedy="pip install 'tspcli[torchcodec]', if it is wanted",
            needs="FFmpeg's shared libraries (Debian: apt-get install ffmpeg) and the release that "
            "goes with this torch",
        ),
        DecoderEntry(
            name="torchcodec-cuda",
            module="tspcli.video.decoders.torchcodec_cuda_source",
            source="TorchcodecCudaSource",
            package="torchcodec",
            summary="torchcodec on a GPU with NVDEC, beside auto on the CPU",
            remedy="pip install 'tspcli[torchcodec]', if it is wanted",
            needs="a GPU with NVDEC and a torchcodec (0.17 or later) built for CUDA",
            on_gpu=True,
            threads=4,
        ),
    ),
)


def is_installed(name: str) -> bool:
    """Whether a decoder's package can be found. It is not imported: that may take seconds."""
    try:
        return find_spec(DECODERS[name].package) is not None
    except (ImportError, ValueError):
        return False


def why_unusable(name: str) -> str | None:
    """Load a decoder in this process; return what keeps it from working, None if nothing does.

    A decoder that crashes takes this process with it; ``tsp doctor`` asks in processes of their
    own.
    """
    try:
        load_source(DECODERS[name]).facts()
    except Exception as error:  # whatever a package of others raises while it is imported
        return first_line(error)
    return None


def resolve_decoders(
    decoder: str | DecoderEntry | Sequence[str | DecoderEntry] = "auto",
) -> tuple[DecoderEntry, ...]:
    """The decoders to try, in order.

    Args:
        decoder: ``auto`` (all of ``auto`` that are installed), a name, an entry of a decoder that
            need not be in the table, or several of these.

    Raises:
        UsageError: If a name is unknown.
        DependencyError: If a decoder that is named is not installed, or none of ``auto`` is.
    """
    if decoder == "auto":
        if found := _auto():
            return found
        raise DependencyError("No video decoder is installed.", remedy=DECODERS["pyav"].remedy)
    asked = tuple(
        item if isinstance(item, DecoderEntry) else _named(item)
        for item in ((decoder,) if isinstance(decoder, (str, DecoderEntry)) else decoder)
    )
    if asked[-1].on_gpu:
        return asked + tuple(entry for entry in _auto() if entry not in asked)
    return asked


def load_source(entry: DecoderEntry) -> type[VideoSource]:
    """The class of a decoder.

    Raises:
        DependencyError: If its module or a library of it cannot be imported.
    """
    try:
        source: type[VideoSource] = getattr(importlib.import_module(entry.module), entry.source)
    except ImportError as error:
        raise DependencyError(
            f"The decoder {entry.name} cannot be imported: {error}",
            remedy=entry.remedy,
            value=entry.name,
        ) from error
    return source


def preload(entry: DecoderEntry) -> None:
    """Import what a decoder needs; torch alone takes seconds, and a minute on a busy machine.

    Anything missing is reported when a video is opened.
    """
    with suppress(Exception):
        load_source(entry)
        importlib.import_module(entry.package)


def open_with(
    path: str | os.PathLike[str],
    decoder: str | DecoderEntry,
    threads: int = 1,
    device: str | None = None,
) -> VideoSource:
    """Open a video with one decoder.

    Args:
        path: The file.
        decoder: Its name or its entry.
        threads: Number of threads of the decoder.
        device: The GPU for a decoder that uses one; None takes the first.

    Raises:
        VideoError: If the decoder cannot open it.
        DependencyError: If the decoder's package or one of its libraries is missing.
    """
    entry = _named(decoder) if isinstance(decoder, str) else decoder
    options = {"device": device} if entry.on_gpu and device is not None else {}
    make: Callable[..., VideoSource] = load_source(entry)
    return make(os.fspath(path), threads=threads, **options)


def open_source(
    path: str | os.PathLike[str],
    decoder: str | DecoderEntry | Sequence[str | DecoderEntry] = "auto",
    threads: int = 1,
) -> VideoSource:
    """Open a video in this process.

    A decoder that hangs or crashes takes this process with it. For collections of videos, use
    :class:`tspcli.video.DecodePool`, which contains that.

    Args:
        path: The file.
        decoder: As for :func:`resolve_decoders`.
        threads: Number of threads of the decoder.

    Raises:
        VideoError: With the first decoder's reason, if none can open it.
        DependencyError: If no decoder that may be used is installed.
    """
    failed: list[tuple[str, VideoError]] = []
    for entry in resolve_decoders(decoder):
        try:
            return open_with(path, entry, threads)
        except VideoError as error:
            failed.append((entry.name, error))
            if error.reason in FINAL_REASONS:
                break
    raise combine_failures(failed, path)


def combine_failures(
    failed: Sequence[tuple[str, VideoError]], path: str | os.PathLike[str]
) -> VideoError:
    """The errors of several decoders as one: the first one's reason, and the details of all.

    Details that several decoders share stand once, and without their names if all share them.
    """
    first = failed[0][1]
    if first.reason in FINAL_REASONS:
        return first
    names: dict[str, list[str]] = {}
    for name, error in failed:
        names.setdefault(error.detail, []).append(name)
    if len(names) == 1:
        return first
    message = "; ".join(f"{', '.join(who)}: {detail}" for detail, who in names.items())
    return VideoError(first.reason, message, path=path)


def _auto() -> tuple[DecoderEntry, ...]:
    return tuple(e for name, e in DECODERS.items() if e.in_auto and is_installed(name))


def _named(name: str) -> DecoderEntry:
    if name not in DECODERS:
        raise UsageError(
            f"There is no decoder {name!r}.",
            remedy=f"Use auto, {', '.join(DECODERS)}.",
            value=name,
        )
    if not is_installed(name):
        raise DependencyError(
            f"The decoder {name} is not installed.", remedy=DECODERS[name].remedy, value=name
        )
    return DECODERS[name]
