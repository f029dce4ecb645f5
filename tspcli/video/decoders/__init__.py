"""The decoders: which there are, which are installed, and opening a video with one of them."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec

from tspcli.core.text import storable
from tspcli.errors import DependencyError, UsageError, VideoError
from tspcli.video.source import VideoSource

FINAL_REASONS = frozenset({"missing", "unreadable", "empty"})
"""Reasons that no other decoder can change."""


@dataclass(frozen=True)
class DecoderEntry:
    """One decoder.

    Attributes:
        name: As the user calls it.
        package: The module that must be importable.
        module, source: Where its :class:`VideoSource` is.
        remedy: How to get the package.
        in_auto: Whether ``auto`` may use it.
        on_gpu: Whether it decodes on a GPU; those of ``auto`` follow it where it cannot.
    """

    name: str
    package: str
    module: str
    source: str
    remedy: str
    in_auto: bool = True
    on_gpu: bool = False


DECODERS: dict[str, DecoderEntry] = {}


def register_decoder(entry: DecoderEntry) -> None:
    """Add a decoder; those of ``auto`` are tried in the order in which they were added."""
    DECODERS[entry.name] = entry


# Fastest first, by the figures in docs/decoders.md; all three give the same pixels for 4:2:0.
register_decoder(
    DecoderEntry(
        name="pyav",
        package="av",
        module="tspcli.video.decoders.pyav_source",
        source="PyavSource",
        remedy="Install it with: pip install av",
    )
)
register_decoder(
    DecoderEntry(
        name="decord",
        package="decord",
        module="tspcli.video.decoders.decord_source",
        source="DecordSource",
        remedy="Install it with: pip install decord (x86-64 Linux and Windows), or use pyav.",
    )
)
register_decoder(
    DecoderEntry(
        name="torchcodec",
        package="torchcodec",
        module="tspcli.video.decoders.torchcodec_source",
        source="TorchcodecSource",
        remedy="Install it with: pip install 'tspcli[torchcodec]', or use --decoder auto.",
        # It brings torch into every decode process, seconds and hundreds of megabytes each.
        in_auto=False,
    )
)
register_decoder(
    DecoderEntry(
        name="torchcodec-cuda",
        package="torchcodec",
        module="tspcli.video.decoders.torchcodec_source",
        source="TorchcodecCudaSource",
        remedy="It needs a GPU with NVDEC and a torchcodec made for CUDA; or use --decoder auto.",
        in_auto=False,
        on_gpu=True,
    )
)


def load_extra_decoder(spec: str) -> None:
    """Import ``module:function`` and call it, so that it can register decoders of its own."""
    module, _, function = spec.partition(":")
    getattr(importlib.import_module(module), function)()


def is_installed(name: str) -> bool:
    """Whether a decoder's package can be found; it is not imported."""
    try:
        return find_spec(DECODERS[name].package) is not None
    except (ImportError, ValueError):
        return False


def resolve_decoders(decoder: str | Sequence[str] = "auto") -> tuple[str, ...]:
    """The names of the decoders to try, in order.

    Args:
        decoder: ``auto`` (all that are installed and fit for it), one name, or several.

    Raises:
        UsageError: If a name is unknown.
        DependencyError: If a decoder that was asked for by name is not installed, or none is.
    """
    if decoder == "auto":
        names = tuple(n for n, entry in DECODERS.items() if entry.in_auto and is_installed(n))
        if not names:
            raise DependencyError("No video decoder is installed.", remedy=DECODERS["pyav"].remedy)
        return names
    asked = (decoder,) if isinstance(decoder, str) else tuple(decoder)
    for name in asked:
        if name not in DECODERS:
            raise UsageError(
                f"There is no decoder {name!r}.", remedy=f"Use auto, {', '.join(DECODERS)}."
            )
        if not is_installed(name):
            raise DependencyError(
                f"The decoder {name} is not installed.", remedy=DECODERS[name].remedy
            )
    last = DECODERS[asked[-1]]
    if last.on_gpu and any(entry.in_auto and is_installed(n) for n, entry in DECODERS.items()):
        return (*asked, *(name for name in resolve_decoders() if name not in asked))
    return asked


def preload(decoder: str) -> None:
    """Import what a decoder needs; torch alone takes seconds, and a minute on a busy machine.

    What is missing is told where a video is opened.
    """
    entry = DECODERS[decoder]
    with suppress(Exception):
        importlib.import_module(entry.module)
        importlib.import_module(entry.package)


def open_with(
    path: str | os.PathLike[str], decoder: str, threads: int = 1, device: str | None = None
) -> VideoSource:
    """Open a video with one decoder.

    Args:
        path: The file.
        decoder: Its name.
        threads: Threads of the decoder.
        device: For a decoder that uses a GPU, which one; None takes the first.

    Raises:
        VideoError: If it cannot.
        DependencyError: If the decoder's package or a library of it is missing.
    """
    entry = DECODERS[decoder]
    try:
        source = getattr(importlib.import_module(entry.module), entry.source)
    except ImportError as error:
        raise DependencyError(
            f"The decoder {decoder} cannot be imported: {error}", remedy=entry.remedy
        ) from error
    options = {"device": device} if entry.on_gpu and device is not None else {}
    return source(os.fspath(path), threads=threads, **options)


def open_source(
    path: str | os.PathLike[str], decoder: str | Sequence[str] = "auto", threads: int = 1
) -> VideoSource:
    """Open a video in this process.

    In this process: a decoder that hangs or crashes takes it along. Whole collections are decoded
    by :class:`tspcli.video.DecodePool`, which contains that.

    Args:
        path: The file.
        decoder: ``auto``, one decoder's name, or several to try in order.
        threads: Threads of the decoder.

    Raises:
        VideoError: With the first decoder's reason, if none can open it.
        DependencyError: If no decoder that may be used is installed.
    """
    failed: list[tuple[str, VideoError]] = []
    for name in resolve_decoders(decoder):
        try:
            return open_with(path, name, threads)
        except VideoError as error:
            failed.append((name, error))
            if error.reason in FINAL_REASONS:
                break
    raise combine_failures(failed, path)


def combine_failures(
    failed: Sequence[tuple[str, VideoError]], path: str | os.PathLike[str]
) -> VideoError:
    """One error out of those of several decoders: the first one's reason, everybody's words.

    What several say alike stands once, and without their names if all do.
    """
    first = failed[0][1]
    if first.reason in FINAL_REASONS:
        return first
    said: dict[str, list[str]] = {}
    for name, error in failed:
        said.setdefault(error.detail, []).append(name)
    if len(said) == 1:
        return first
    message = "; ".join(f"{', '.join(names)}: {detail}" for detail, names in said.items())
    return VideoError(first.reason, message, path=storable(path))
