"""Which videos files, folders and lists name, and their keys in a store."""

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
NO_SUFFIX = "no ending"


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
    """The videos that files, folders and lists name.

    Attributes:
        videos: In a stable order.
        skipped_files: How many files inside folders were not taken for videos, by suffix
            (``.part``), :data:`HIDDEN` (a folder counts once) or :data:`NO_SUFFIX`; most first.
    """

    videos: list[VideoFile]
    skipped_files: dict[str, int]


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """What a file says about its video stream. Decodes one frame.

    Raises:
        VideoError: With its reason, if the file is not a video that can be decoded.
    """
    from tspcli.video.decoders import open_with

    with open_with(path, "pyav") as source:
        return source.info


def list_videos(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    key_template: str = DEFAULT_KEY_TEMPLATE,
) -> list[VideoFile]:
    """Only the videos of :func:`find_videos`."""
    return find_videos(inputs, key_template).videos


def find_videos(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    key_template: str = DEFAULT_KEY_TEMPLATE,
) -> Listing:
    """The videos that files, folders and lists name, in a stable order.

    Args:
        inputs: Files; folders, searched recursively for the usual suffixes, without hidden names;
            ``.txt`` lists with one path per line, relative to the list's folder, without blank
            lines and lines that begin with ``#``. A file that is named but does not exist is
            listed, too: decoding reports it as missing. So is a folder that cannot be listed.
        key_template: The key, made of ``{stem}`` (the file name without its last suffix),
            ``{name}`` (with it) and ``{parent}`` (the folder's name).

    Raises:
        UsageError: If there is no video, two videos have the same key, or the template is wrong.
    """
    if isinstance(inputs, (str, os.PathLike)):
        inputs = [inputs]
    make_key = _key_maker(key_template)
    found: dict[str, VideoFile] = {}
    by_key: dict[str, VideoFile] = {}
    named = [Path(item) for item in inputs]
    skipped_files: Counter[str] = Counter()
    for path in _expand(named, skipped_files):
        place = absolute(path)
        if place in found:
            continue
        video = VideoFile(path, make_key(Path(place)))
        if _is_folder(path) and video.key in by_key:
            # It is listed only to be reported, so any key will do.
            video = VideoFile(path, store_key(place))
        other = by_key.setdefault(video.key, video)
        if other is not video:
            raise UsageError(
                f"Two videos have the key {video.key!r}: {storable(other.path)} and "
                f"{storable(path)}.",
                remedy="Rename one, or give a key template such as {parent}_{stem} or {name}.",
                value=video.key,
                path=storable(path),
            )
        found[place] = video
    if not found:
        names = ", ".join(storable(path) for path in named) or "nothing"
        others = f" ({describe_skipped(skipped_files)})" if skipped_files else ""
        raise UsageError(
            f"No video found in: {names}{others}.",
            remedy="Name video files, folders with videos, or .txt lists of paths.",
            value=names,
        )
    order = sorted(skipped_files.items(), key=lambda kind: (-kind[1], kind[0]))
    return Listing(list(found.values()), dict(order))


def describe_skipped(skipped_files: Mapping[str, int]) -> str:
    """How many files of folders were not taken for videos, in one line.

    >>> describe_skipped({".part": 2, "hidden": 1})
    '3 files skipped: 2 .part, 1 hidden'
    """
    kinds = [f"{count} {kind}" for kind, count in skipped_files.items()]
    if len(kinds) > _MAX_KINDS:
        kinds[_MAX_KINDS:] = [
            f"{sum(list(skipped_files.values())[_MAX_KINDS:])} with other endings"
        ]
    return f"{counted(sum(skipped_files.values()), 'file')} skipped: {', '.join(kinds)}"


def _key_maker(template: str) -> _KeyMaker:
    try:
        fields = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
        unknown = [name for name in fields if name not in _TEMPLATE_FIELDS]
    except ValueError as error:
        fields, unknown = [], [str(error)]
    if unknown or not fields or "/" in template:
        raise UsageError(
            f"The key template {template!r} does not make keys.",
            remedy="Use {stem}, {name} and {parent}, with any characters but slashes in between.",
            value=template,
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


def _expand(inputs: Iterable[Path], skipped_files: Counter[str]) -> Iterator[Path]:
    for path in inputs:
        if _is_folder(path):
            yield from _in_folder(path, skipped_files)
        elif path.suffix.lower() == ".txt":
            yield from _in_list(path, skipped_files)
        else:
            yield path


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        # A name too long for the system, which is reported when it is opened.
        return False


def _in_folder(folder: Path, skipped_files: Counter[str]) -> Iterator[Path]:
    # Links to folders are followed, but each folder is visited once: a link may lead to its parent.
    seen: set[tuple[int, int]] = set()
    failed: list[Path] = []
    walk = os.walk(folder, followlinks=True, onerror=lambda e: failed.append(Path(e.filename)))
    for root, folders, names in walk:
        try:
            status = os.stat(root)
        except OSError:
            failed.append(Path(root))
            folders.clear()
            continue
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        visible = sorted(name for name in folders if not name.startswith("."))
        if len(visible) < len(folders):
            skipped_files[HIDDEN] += len(folders) - len(visible)
        folders[:] = visible
        for name in sorted(names):
            suffix = Path(name).suffix.lower()
            if name.startswith("."):
                skipped_files[HIDDEN] += 1
            elif suffix in VIDEO_SUFFIXES:
                yield Path(root, name)
            else:
                skipped_files[store_key(suffix) or NO_SUFFIX] += 1
    # Last, so that a video of the same name gets the key.
    yield from failed


def _in_list(path: Path, skipped_files: Counter[str]) -> Iterator[Path]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"The list {storable(path)} cannot be read: {error.strerror or error}.",
            path=storable(path),
        ) from error
    for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        name = os.fsdecode(line.strip())
        if not name or name.startswith("#"):
            continue
        if "\0" in name:
            raise UsageError(
                f"The list {storable(path)} is not a text file.",
                remedy="Write one path per line.",
                path=storable(path),
            )
        entry = path.parent / name
        yield from _in_folder(entry, skipped_files) if _is_folder(entry) else (entry,)
