"""Which videos there are, what they are called, and what their files say about them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

from tspcli.core.files import absolute
from tspcli.core.text import counted, storable
from tspcli.core.video_names import VIDEO_SUFFIXES, store_key
from tspcli.errors import UsageError
from tspcli.video.source import VideoInfo

DEFAULT_KEY_TEMPLATE = "{stem}"
_MAX_KINDS = 6
_TEMPLATE_FIELDS = ("stem", "name", "parent")

HIDDEN = "hidden"
NO_ENDING = "no ending"


@dataclass(frozen=True)
class VideoFile:
    """A video on disk.

    Attributes:
        path: The file.
        key: Its name in a store.
    """

    path: Path
    key: str


@dataclass(frozen=True)
class Listing:
    """What files, folders and lists name.

    Attributes:
        videos: In a stable order.
        passed_over: How many files inside folders were taken for no videos, by their ending
            (``.part``), or as :data:`HIDDEN` (a folder counts once) or :data:`NO_ENDING`.
    """

    videos: list[VideoFile]
    passed_over: dict[str, int]


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """What a file says about its video stream; decodes one frame.

    Raises:
        VideoError: With its reason, if the file is no video that can be decoded.
    """
    from tspcli.video.decoders import open_with

    with open_with(path, "pyav") as source:
        return source.info


def list_videos(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    key_template: str = DEFAULT_KEY_TEMPLATE,
) -> list[VideoFile]:
    """The videos of :func:`find_videos` alone."""
    return find_videos(inputs, key_template).videos


def find_videos(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    key_template: str = DEFAULT_KEY_TEMPLATE,
) -> Listing:
    """The videos that files, folders and lists name, in a stable order.

    Args:
        inputs: Files; folders, searched recursively for the usual suffixes, hidden names left out;
            ``.txt`` lists with a path on each line, relative to the list's folder, where blank
            lines and lines that begin with ``#`` count for nothing. A file that is named but does
            not exist is listed too: what follows tells that it is missing.
        key_template: How a key is made, of ``{stem}`` (the file's name without its last suffix),
            ``{name}`` (with it) and ``{parent}`` (the folder's name).

    Raises:
        UsageError: If there is no video, two have one key, or the template makes no sense.
    """
    if isinstance(inputs, (str, os.PathLike)):
        inputs = [inputs]
    make_key = _key_maker(key_template)
    found: dict[str, VideoFile] = {}
    by_key: dict[str, VideoFile] = {}
    named = [Path(item) for item in inputs]
    passed_over: Counter[str] = Counter()
    for path in _expand(named, passed_over):
        place = absolute(path)
        if place in found:
            continue
        video = VideoFile(path, make_key(Path(place)))
        other = by_key.setdefault(video.key, video)
        if other is not video:
            raise UsageError(
                f"Two videos have the key {video.key!r}: {storable(other.path)} and "
                f"{storable(path)}.",
                remedy="Rename one, or give a key template such as {parent}_{stem} or {name}.",
            )
        found[place] = video
    if not found:
        names = ", ".join(storable(path) for path in named) or "nothing"
        others = f" ({describe_passed_over(passed_over)})" if passed_over else ""
        raise UsageError(
            f"There is no video in: {names}{others}.",
            remedy="Name video files, folders with videos, or .txt lists of paths.",
        )
    order = sorted(passed_over.items(), key=lambda kind: (-kind[1], kind[0]))
    return Listing(list(found.values()), dict(order))


def describe_passed_over(passed_over: Mapping[str, int]) -> str:
    """How many files of folders were taken for no videos, in one line.

    >>> describe_passed_over({".part": 2, "hidden": 1})
    '3 files passed over: 2 .part, 1 hidden'
    """
    kinds = [f"{count} {kind}" for kind, count in passed_over.items()]
    if len(kinds) > _MAX_KINDS:
        kinds[_MAX_KINDS:] = [f"{sum(list(passed_over.values())[_MAX_KINDS:])} of other endings"]
    return f"{counted(sum(passed_over.values()), 'file')} passed over: {', '.join(kinds)}"


def _key_maker(template: str) -> _KeyMaker:
    try:
        fields = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
        unknown = [name for name in fields if name not in _TEMPLATE_FIELDS]
    except ValueError as error:
        fields, unknown = [], [str(error)]
    if unknown or not fields or "/" in template:
        raise UsageError(
            f"The key template {template!r} makes no keys.",
            remedy="Use {stem}, {name} and {parent} with other characters but slashes between.",
        )
    return _KeyMaker(template)


@dataclass(frozen=True)
class _KeyMaker:
    template: str

    def __call__(self, path: Path) -> str:
        head, dot, _ = path.name.rpartition(".")
        stem = head if dot and head else path.name
        key = self.template.format(stem=stem, name=path.name, parent=path.parent.name)
        return store_key(key)


def _expand(inputs: Iterable[Path], passed_over: Counter[str]) -> Iterator[Path]:
    for path in inputs:
        if _is_folder(path):
            yield from _in_folder(path, passed_over)
        elif path.suffix.lower() == ".txt":
            yield from _in_list(path, passed_over)
        else:
            yield path


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        # A name that is too long for the system; who opens it will say so.
        return False


def _in_folder(folder: Path, passed_over: Counter[str]) -> Iterator[Path]:
    # Links to folders are followed, each place once: a link to its own parent ends.
    seen: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(root)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        visible = sorted(name for name in folders if not name.startswith("."))
        if len(visible) < len(folders):
            passed_over[HIDDEN] += len(folders) - len(visible)
        folders[:] = visible
        for name in sorted(names):
            suffix = Path(name).suffix.lower()
            if name.startswith("."):
                passed_over[HIDDEN] += 1
            elif suffix in VIDEO_SUFFIXES:
                yield Path(root, name)
            else:
                passed_over[store_key(suffix) or NO_ENDING] += 1


def _in_list(path: Path, passed_over: Counter[str]) -> Iterator[Path]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"The list {storable(path)} cannot be read: {error.strerror or error}.",
            remedy="Name a text file with a path on each line.",
        ) from error
    for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        name = os.fsdecode(line.strip())
        if not name or name.startswith("#"):
            continue
        if "\0" in name:
            raise UsageError(
                f"The list {storable(path)} is no text.", remedy="Write a path on each line."
            )
        entry = path.parent / name
        yield from _in_folder(entry, passed_over) if _is_folder(entry) else (entry,)
