"""What a store says about its file and about each video: every attribute, with its meaning.

The attributes of a file are :class:`FileAttributes`, those of a video's dataset
:class:`VideoAttributes`. Each field states what the attribute means, its unit, who writes it, and
whether exports and files of global features (GVF) take it over; everybody who reads or writes an
attribute goes through these classes. :class:`StoreMetadata` is what the program works with: the
settings that the rows depend on, and their digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import PurePath
from typing import Any, ClassVar, TypeVar

import numpy as np

from tspcli.core.run_dir import differences, require_same
from tspcli.core.text import canonical_json
from tspcli.core.version import __version__
from tspcli.errors import StoreError, StoreMismatchError
from tspcli.sampling import Sampling
from tspcli.sampling.spec import as_rate
from tspcli.sampling.windows import Seconds, is_series, row_times_s

FORMAT = "tspcli-features"
GVF_FORMAT = "tspcli-gvf"
FORMAT_VERSION = 2
"""2: HDF5's own checksums and an index of checksums. 1: an index alone, which is still read."""

_ENCODER_LABELS = ("weights", "weights_path")
_A = TypeVar("_A", bound="_Attributes")


@dataclass(frozen=True)
class Attribute:
    """What is known of an attribute.

    Attributes:
        meaning: One sentence for a reader of the file.
        unit: Of a number, such as ``s``; empty for texts and counts.
        written_by: ``extract``, ``merge`` or ``gvf``.
        exported: Whether exports that carry attributes take it over as it is.
        kept_in_gvf: Whether a file of global features keeps it.
    """

    meaning: str
    unit: str = ""
    written_by: str = "extract"
    exported: bool = False
    kept_in_gvf: bool = False


def _attribute(meaning: str, **about: Any) -> Any:
    return field(default=None, metadata={"attribute": Attribute(meaning, **about)})


class _Attributes:
    """Attributes as typed values; the field names are those in the file."""

    _READERS: ClassVar[Mapping[str, Any]] = {
        "str": str,
        "int": int,
        "float": float,
        "tuple[float, ...]": lambda value: tuple(float(number) for number in value),
    }

    @classmethod
    def known(cls) -> dict[str, Attribute]:
        """Every attribute by name."""
        return {a.name: a.metadata["attribute"] for a in cls._fields()}

    @classmethod
    def _fields(cls) -> list[Field[Any]]:
        return list(fields(cls))  # type: ignore[arg-type]

    def to_hdf5(self) -> dict[str, Any]:
        """The attributes that are set, as values that HDF5 takes."""
        values = {a.name: getattr(self, a.name) for a in self._fields()}
        return {name: _stored(value) for name, value in values.items() if value is not None}

    @classmethod
    def from_hdf5(cls: type[_A], values: Mapping[str, Any]) -> _A:
        """Read attributes; those of other programs are left out, absent ones are None.

        Raises:
            ValueError: If a value is not of its attribute's type.
            TypeError: Likewise.
        """
        found = {}
        for a in cls._fields():
            if (value := values.get(a.name)) is not None:
                kind = str(a.type).split(" | ")[0]
                read = cls._READERS.get(kind) or (lambda v: tuple(map(str, json.loads(v))))
                found[a.name] = read(value)
        return cls(**found)


@dataclass(frozen=True)
class VideoAttributes(_Attributes):
    """The attributes of one video's dataset; None where the file does not say."""

    video: str | None = _attribute("file name of the video", exported=True)
    source_bytes: int | None = _attribute(
        "size of the video file when it was read", unit="bytes", exported=True, kept_in_gvf=True
    )
    source_fps: float | None = _attribute(
        "mean frame rate of the video", unit="frames/s", kept_in_gvf=True
    )
    source_frames: int | None = _attribute("number of frames decoded")
    source_start_s: float | None = _attribute("time of the first frame", unit="s", exported=True)
    duration_s: float | None = _attribute(
        "time from the first frame to the end of the last one's display", unit="s", kept_in_gvf=True
    )
    frame_rate: float | None = _attribute("samples per second within a clip", unit="samples/s")
    clip_length: int | None = _attribute("samples per clip")
    stride: int | None = _attribute("samples from one clip's start to the next one's")
    grid_rate: float | None = _attribute(
        "rate of the constant grid that samples are taken from", unit="ticks/s"
    )
    first_sample: int | None = _attribute(
        "samples from the video's start to the first row's, if not 0"
    )
    row_samples: int | None = _attribute(
        "samples that a row stands for, from its start to its end, if not `clip_length`"
    )
    row_start_s: tuple[float, ...] | None = _attribute(
        "start of each row after the first frame, where rows do not follow at the stride",
        unit="s",
        exported=True,
    )
    row_end_s: tuple[float, ...] | None = _attribute(
        "end of each row after the first frame, likewise", unit="s", exported=True
    )
    padding: str | None = _attribute(
        "`repeat-last-frame` where the video is shorter than one clip, else `none`", exported=True
    )
    padded_samples: int | None = _attribute("samples that padding added", exported=True)
    decoder: str | None = _attribute("decoder that read the video", exported=True, kept_in_gvf=True)
    warnings: tuple[str, ...] | None = _attribute(
        "JSON list of what was unusual about the video", kept_in_gvf=True
    )
    checksum: str | None = _attribute("sha256 of the rows and of the other attributes")
    pooled_rows: int | None = _attribute(
        "number of rows that were pooled into the vector",
        written_by="gvf",
        exported=True,
        kept_in_gvf=True,
    )

    @property
    def sampling(self) -> Sampling | None:
        """How the video was cut into clips, or None if the attributes do not say.

        Only the settings of the file state more than the times of rows.

        Raises:
            TspError: If they are out of range.
        """
        if self.frame_rate is None or self.clip_length is None or self.stride is None:
            return None
        rate = as_rate(self.frame_rate, "frame rate")
        grid = max(rate, as_rate(30)) if self.grid_rate is None else as_rate(self.grid_rate)
        first = self.first_sample or 0
        rows = first, first + (self.row_samples or self.clip_length)
        return Sampling(rate, self.clip_length, self.stride, grid_rate=grid, extent=rows)


def exported_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that hold for exported rows too, those of other programs included."""
    known = VideoAttributes.known()
    return {k: v for k, v in attributes.items() if k not in known or known[k].exported}


def gvf_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes worth keeping of a video of which only one vector is left."""
    known = VideoAttributes.known()
    return {k: v for k, v in attributes.items() if k in known and known[k].kept_in_gvf}


def sampling_attributes(sampling: Sampling) -> dict[str, Any]:
    """The sampling as attributes, for people to read; the exact rates are in the settings.

    A file of native samplings has no rate of its own: each video has.
    """
    first, end = sampling.window
    values = {
        "frame_rate": float(sampling.frame_rate),
        "clip_length": sampling.clip_length,
        "stride": sampling.stride,
        "grid_rate": float(sampling.grid_rate),
        "first_sample": sampling.phase + first,
        "row_samples": end - first,
    }
    unsaid = {"frame_rate": 0, "grid_rate": 0, "first_sample": 0}
    unsaid["row_samples"] = sampling.clip_length
    return {name: value for name, value in values.items() if value != unsaid.get(name)}


def row_time_attributes(
    sampling: Sampling, n_rows: int, n_ticks: int, frame_times_s: Seconds | None
) -> dict[str, Any]:
    """The rows' times as attributes, where :func:`sampling_attributes` do not say them.

    The arguments are those of :func:`tspcli.sampling.windows.row_times_s`.
    """
    if frame_times_s is None and is_series(sampling, n_rows, n_ticks):
        return {}
    starts, ends = row_times_s(sampling, n_rows, n_ticks, frame_times_s)
    return {
        "row_start_s": tuple(starts.astype(np.float32).tolist()),
        "row_end_s": tuple(ends.astype(np.float32).tolist()),
    }


@dataclass(frozen=True)
class FileAttributes(_Attributes):
    """The attributes of a file. The settings stand there exactly, and the main ones readably."""

    format: str | None = _attribute(f"`{FORMAT}`, or `{GVF_FORMAT}` for one vector per video")
    format_version: int | None = _attribute(f"version of the format, {FORMAT_VERSION} now")
    settings: str | None = _attribute("canonical JSON of everything that changes a row")
    settings_digest: str | None = _attribute("sha256 of the settings")
    labels: str | None = _attribute(
        "JSON of what changes no row: the weights' name, their path if they were a local file, and "
        "the recipe that was followed"
    )
    tool_version: str | None = _attribute("version of tspcli that computed the rows")
    encoder: str | None = _attribute("name of the backbone")
    weights: str | None = _attribute("name of the weights")
    weights_sha256: str | None = _attribute("sha256 of the weights")
    precision: str | None = _attribute("arithmetic of the encoder")
    preprocessing: str | None = _attribute("JSON of how frames were scaled, cropped, normalised")
    frame_rate: float | None = _attribute("samples per second within a clip", unit="samples/s")
    clip_length: int | None = _attribute("samples per clip")
    stride: int | None = _attribute("samples from one clip's start to the next one's")
    grid_rate: float | None = _attribute(
        "rate of the constant grid that samples are taken from", unit="ticks/s"
    )
    first_sample: int | None = _attribute(
        "samples from a video's start to the first row's, if not 0"
    )
    row_samples: int | None = _attribute(
        "samples that a row stands for, from its start to its end, if not `clip_length`"
    )
    shard_plan: str | None = _attribute(
        "digest of the plan that assigned videos to shards; only in a shard's store"
    )
    linked_stores: int | None = _attribute(
        "number of stores that a store of links leads to", written_by="merge"
    )
    pool: str | None = _attribute("`max` or `mean`, how rows became one vector", written_by="gvf")
    source_format: str | None = _attribute("format of the pooled store", written_by="gvf")


@dataclass(frozen=True)
class StoreMetadata:
    """The provenance of a store.

    Attributes:
        settings: Everything that changes a row: backbone, weights' sha256, preprocessing, sampling,
            precision. Plain values, nested at will. Empty for a file of another program.
        labels: Useful facts that change no row: the weights' name, and their path if they were a
            local file.
        tool_version: The version of this program that computed the rows, or None.
        shard_plan: In the store of one shard, the digest of the plan that assigned the run's videos
            to its shards.
    """

    settings: Mapping[str, Any]
    labels: Mapping[str, Any]
    tool_version: str | None = __version__
    shard_plan: str | None = None

    @classmethod
    def build(
        cls, *, sampling: Sampling, encoder: Mapping[str, Any], **labels: Any
    ) -> StoreMetadata:
        """Metadata of rows that an encoder computes.

        Args:
            sampling: How videos are cut into clips.
            encoder: The encoder's provenance; ``weights`` (a name) and ``weights_path`` become
                labels, everything else a setting.
            **labels: Further labels.
        """
        settings = {key: value for key, value in encoder.items() if key not in _ENCODER_LABELS}
        settings["sampling"] = sampling.to_dict()
        named = {key: encoder[key] for key in _ENCODER_LABELS if key in encoder}
        return cls(settings, {"weights": None, **named, **labels})

    @property
    def settings_digest(self) -> str:
        """sha256 of the settings' canonical JSON; equal digests may share a store."""
        return hashlib.sha256(canonical_json(self.settings).encode()).hexdigest()

    @property
    def sampling(self) -> Sampling | None:
        """The sampling in the settings, or None for a file of another program."""
        values = self.settings.get("sampling")
        return None if values is None else Sampling.from_dict(values)

    @property
    def encoder(self) -> str | None:
        """The backbone's name, or None."""
        return self.settings.get("backbone")

    @property
    def weights(self) -> str | None:
        """The weights' name, or None."""
        return self.labels.get("weights")

    @property
    def weights_in_words(self) -> str | None:
        """The weights' name, for a local file with its folder and the start of its sha256.

        So that two runs' ``best.pth`` can be told apart.
        """
        if self.weights is None or self.weights_path is None:
            return self.weights
        folder = PurePath(self.weights_path).parent.name
        name = f"{folder}/{self.weights}" if folder else self.weights
        return f"{name} (sha256 {str(self.settings.get('weights_sha256'))[:8]})"

    @property
    def recipe(self) -> Mapping[str, Any] | None:
        """The recipe that was followed: its ``name``, ``digest`` and ``deviations``; or None."""
        return self.labels.get("recipe")

    @property
    def weights_path(self) -> str | None:
        """Path of the weights when the rows were computed; None for registered weights."""
        return self.labels.get("weights_path")

    def to_hdf5(self, **others: Any) -> dict[str, Any]:
        """The attributes of a file.

        Args:
            **others: Further :class:`FileAttributes`, or other values for some.
        """
        sampling = self.sampling
        preprocessing = self.settings.get("preprocessing")
        values: dict[str, Any] = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "settings": canonical_json(self.settings),
            "settings_digest": self.settings_digest,
            "labels": canonical_json(self.labels),
            "tool_version": self.tool_version,
            "encoder": self.encoder,
            "weights": self.weights,
            "weights_sha256": self.settings.get("weights_sha256"),
            "precision": self.settings.get("precision"),
            "preprocessing": canonical_json(preprocessing),
            "shard_plan": self.shard_plan,
            **({} if sampling is None else sampling_attributes(sampling)),
        }
        return FileAttributes(**{**values, **others}).to_hdf5()

    @classmethod
    def from_hdf5(cls, attributes: Mapping[str, Any], path: str) -> StoreMetadata:
        """Read what :meth:`to_hdf5` wrote; a file without it has empty settings.

        Raises:
            StoreError: If the attributes are damaged or of a newer format.
        """
        if attributes.get("format") != FORMAT:
            return cls({}, {}, None)
        try:
            read = FileAttributes.from_hdf5(attributes)
            if (version := read.format_version or 0) > FORMAT_VERSION:
                raise StoreError(
                    f"{path} has format version {version}; this version of tspcli reads up to "
                    f"{FORMAT_VERSION}.",
                    remedy="Update tspcli.",
                    path=path,
                )
            settings = json.loads(attributes["settings"])
            metadata = cls(
                settings, json.loads(read.labels or "{}"), read.tool_version, read.shard_plan
            )
            metadata.sampling  # noqa: B018 (raises if the sampling is unreadable)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise _damaged_settings(path, f"{type(error).__name__}: {error}") from error
        if metadata.settings_digest != read.settings_digest:
            raise _damaged_settings(path, "they do not match their digest")
        return metadata

    def differences(self, other: StoreMetadata) -> list[str]:
        """The settings in which two stores differ, each as ``name: this, not that``."""
        found = differences(self.settings, other.settings)
        return [f"{name}: {text}" for name, text in found.items()]

    def require_same(
        self,
        other: StoreMetadata,
        this: str,
        that: str,
        *,
        remedy: str = "Give the settings of the existing store, another --out, or --overwrite.",
    ) -> None:
        """Raise unless both describe rows that may be in one store.

        Raises:
            StoreMismatchError: Naming every setting that differs.
        """
        require_same(
            self.settings,
            other.settings,
            that,
            this,
            error=StoreMismatchError,
            remedy=remedy,
        )


def _damaged_settings(path: str, why: str) -> StoreError:
    return StoreError(
        f"{path}: the settings in its attributes are damaged ({why}).",
        remedy="Restore the file from a copy, or compute it again.",
        path=path,
    )


def _stored(value: Any) -> Any:
    if not isinstance(value, tuple):
        return value
    numbers = bool(value) and isinstance(value[0], float)
    return list(value) if numbers else json.dumps(list(value))
