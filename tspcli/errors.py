"""Every error that a user can meet, each with what to do about it.

The command line turns a :class:`TspError` into a short message and an exit code; the library lets
it through. Anything else that escapes is a fault of this program.
"""

from __future__ import annotations

import os

VIDEO_REASONS: dict[str, str] = {
    "missing": "the file does not exist",
    "unreadable": "the operating system refuses to open or read the file",
    "empty": "the file has no bytes",
    "not-a-video": "no decoder recognises the file as a video",
    "no-video-stream": "the file holds no video stream, only audio or data",
    "no-frames": "the file has a video stream, but none of its frames can be decoded",
    "too-short": "the video is shorter than one clip",
    "damaged": "part of the video cannot be decoded",
    "timeout": "the decoder made no progress within the time limit and was stopped",
    "crashed": "the decoder process died",
    "unsupported": "the decoder lacks the codec or the pixel format",
    "out-of-memory": "there was not enough memory for the video",
}
"""Every named reason for which a video can end without features."""

VIDEO_REMEDIES: dict[str, str] = {
    "missing": "Correct the path, or the list that names it: its paths start from its own folder.",
    "unreadable": "Make it a regular file that you may read: see its permissions and its disk.",
    "empty": "Fetch or copy it again.",
    "not-a-video": "Fetch it again if it should be one, leave it out if not; lists end with .txt.",
    "no-video-stream": "Leave it out, or fetch the version with video.",
    "no-frames": "Fetch or copy it again; `ffprobe FILE` shows more.",
    "too-short": "Use --short-videos pad (repeats its last frame) or a shorter --clip-length.",
    "damaged": "Fetch or copy it again.",
    "timeout": "If the disk is slow, give `tsp extract` a longer --decode-timeout.",
    "crashed": "Try another --decoder, or convert it with ffmpeg.",
    "unsupported": "Try another --decoder, or convert it to H.264 with ffmpeg.",
    "out-of-memory": "Use fewer --workers, or convert it to smaller frames with ffmpeg.",
}
"""What to do about a video that a run leaves without features, unless the error says so itself."""


class TspError(Exception):
    """An error that the user can do something about.

    Args:
        message: What is wrong, with the offending value.
        remedy: What to do about it, as a sentence; only an action that the message does not imply.
        data: What programs may want to know of it: ``path``, ``option``, ``value``, ``line``.
    """

    exit_code = 1
    reported_elsewhere = False
    """Whether another process of the same command shows the same error to the user."""

    def __init__(self, message: str, *, remedy: str | None = None, **data: object) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.data = data

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}" if self.remedy else self.message

    def __reduce__(self) -> tuple[object, ...]:
        # Errors travel between processes, and not every subclass is made from its args alone.
        return _remake, (type(self), self.args, self.__dict__.copy())


def _remake(kind: type[TspError], args: tuple[object, ...], state: dict[str, object]) -> TspError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class UsageError(TspError):
    """A value that makes no sense, or values that contradict each other."""

    exit_code = 2


class DependencyError(TspError):
    """A package or a system library that is needed here is not installed."""


class VideoError(TspError):
    """A video that ends without features.

    Args:
        reason: A key of :data:`VIDEO_REASONS`.
        message: The details, usually the decoder's own words.
        path: The video.
        remedy: What to do about it, where :data:`VIDEO_REMEDIES` says too little.
    """

    def __init__(
        self,
        reason: str,
        message: str | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        remedy: str | None = None,
    ) -> None:
        if reason not in VIDEO_REASONS:
            raise ValueError(f"unknown reason {reason!r}, expected one of {list(VIDEO_REASONS)}")
        text = message or VIDEO_REASONS[reason]
        # Bytes that are not UTF-8 become escapes, so that terminals and files can take them.
        name = None if path is None else os.fspath(path).encode("utf-8", "backslashreplace")
        self.path = None if name is None else name.decode()
        super().__init__(f"{self.path}: {text}" if name is not None else text, remedy=remedy)
        self.reason = reason
        self.detail = text


class StoreError(TspError):
    """A feature store that cannot be read or written."""


class StoreMismatchError(StoreError):
    """Two stores, or a store and a run, whose settings differ."""


class StoreLockedError(StoreError):
    """Another run is writing the same output, or another program has the file open for writing."""


class CheckpointError(TspError):
    """A checkpoint that cannot be loaded, or that will not be because it carries code."""


class WeightsError(TspError):
    """Weights that are unknown, unavailable or not what their checksum says."""


class DownloadError(WeightsError):
    """A download that did not arrive completely."""


class AnnotationError(TspError):
    """Annotations that cannot be read or that contradict the videos."""


class ExportError(TspError):
    """Features that cannot be written in the form that their reader expects."""


class TrainingError(TspError):
    """A training run that cannot start or resume."""


class LocalizationError(TspError):
    """A localization model, its input or its predictions that do not fit together."""
