"""What a store says about itself: the settings that its rows depend on, and their digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tspcli.core.run_dir import differences, require_same
from tspcli.core.text import canonical_json
from tspcli.core.version import __version__
from tspcli.errors import StoreError, StoreMismatchError
from tspcli.sampling import Sampling

FORMAT = "tspcli-features"
FORMAT_VERSION = 1

_ENCODER_LABELS = ("weights", "weights_path")
_UNSET = object()


@dataclass(frozen=True)
class StoreMetadata:
    """The provenance of a store.

    Attributes:
        settings: Everything that changes a row: backbone, weights' sha256, preprocessing, sampling,
            precision. Plain values, nested at will. Empty for a file made by another program.
        labels: What is good to know and changes no row: the weights' name, and where they lay if
            they were a file of the user's.
        tool_version: The version of this program that wrote the store, or None.
        shard_plan: Digest of the plan by which the videos of a run were shared out among its
            shards, in the store of one shard.
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
            encoder: The encoder's provenance; ``weights`` (a name) and ``weights_path`` are labels,
                all else a setting.
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
        """The sampling in the settings, or None for a file made by another program."""
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
    def weights_path(self) -> str | None:
        """Where the weights lay when the rows were computed, unless they have a registered name."""
        return self.labels.get("weights_path")

    def to_attributes(self) -> dict[str, Any]:
        """HDF5 attributes of the file: the exact JSON, and its main values in plain sight."""
        attributes: dict[str, Any] = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "settings": canonical_json(self.settings),
            "settings_digest": self.settings_digest,
            "labels": canonical_json(self.labels),
        }
        if self.tool_version is not None:
            attributes["tool_version"] = self.tool_version
        plain = {
            "encoder": self.encoder,
            "weights": self.weights,
            "weights_sha256": self.settings.get("weights_sha256"),
            "shard_plan": self.shard_plan,
            "precision": self.settings.get("precision"),
            "preprocessing": canonical_json(self.settings.get("preprocessing")),
        }
        attributes.update({key: value for key, value in plain.items() if value is not None})
        sampling = self.sampling
        if sampling is not None:
            attributes.update(sampling_attributes(sampling))
        return attributes

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any], path: str) -> StoreMetadata:
        """Read what :meth:`to_attributes` wrote; a file without it has empty settings.

        Raises:
            StoreError: If the attributes are damaged or of a newer format.
        """
        if attributes.get("format") != FORMAT:
            return cls({}, {}, None)
        version = int(attributes.get("format_version", 0))
        if version > FORMAT_VERSION:
            raise StoreError(
                f"{path} has format version {version}; this program reads up to {FORMAT_VERSION}.",
                remedy="Update tspcli.",
            )
        try:
            settings = json.loads(attributes["settings"])
            labels = json.loads(attributes.get("labels", "{}"))
            metadata = cls(
                settings, labels, attributes.get("tool_version"), attributes.get("shard_plan")
            )
            metadata.sampling  # noqa: B018 (raises if the sampling is unreadable)
        except (KeyError, ValueError, TypeError) as error:
            raise StoreError(
                f"{path}: the attributes that say how the features were made are damaged "
                f"({type(error).__name__}: {error}).",
                remedy="Take a copy of the file that is whole, or compute it again.",
            ) from error
        if metadata.settings_digest != attributes.get("settings_digest"):
            raise StoreError(
                f"{path}: the settings do not match their digest, so the attributes are damaged.",
                remedy="Take a copy of the file that is whole, or compute it again.",
            )
        return metadata

    def differences(self, other: StoreMetadata) -> list[str]:
        """The settings in which two stores differ, each as ``name: this, not that``."""
        found = differences(self.settings, other.settings)
        return [f"{name}: {text}" for name, text in found.items()]

    def require_same(self, other: StoreMetadata, this: str, that: str) -> None:
        """Raise unless both describe rows that may stand in one store.

        Raises:
            StoreMismatchError: Naming every setting that differs.
        """
        require_same(
            self.settings,
            other.settings,
            that,
            this,
            error=StoreMismatchError,
            remedy="Give the settings of the existing store, another --out, or --overwrite.",
        )


def sampling_attributes(sampling: Sampling) -> dict[str, Any]:
    """The sampling as HDF5 attributes: numbers for people; the exact ones are in the settings."""
    return {
        "frame_rate": float(sampling.frame_rate),
        "clip_length": sampling.clip_length,
        "stride": sampling.stride,
        "grid_rate": float(sampling.grid_rate),
    }
