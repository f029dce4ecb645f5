"""Checkpoints: read without running anything that they carry, written whole or not at all.

Layouts that are read:

* official TSP: a dict with ``model`` and perhaps ``optimizer``, ``lr_scheduler``, ``epoch`` and
  ``args`` (an ``argparse.Namespace``); weights under ``features.``, heads under ``fc`` or under
  ``fc1`` and ``fc2``;
* plain: a dict of tensors as torchvision and IG-65M publish them (``stem.``, ``layer1.``, ``fc.``);
* the pickle of numpy arrays in which the I3D weights come (:mod:`tspcli.encoders.weight_files`).

A ``module.`` prefix is dropped. Inside this program the official names are used throughout.
"""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tspcli.core.files import replacing
from tspcli.core.text import first_line, refuses_damage
from tspcli.encoders.backbones.registry import backbone_spec
from tspcli.encoders.preprocessing import Preprocessing
from tspcli.encoders.state_dicts import StateLayout, Unfilled, difference, match_layout
from tspcli.encoders.tsp_model import Heads, TspModel
from tspcli.errors import CheckpointError
from tspcli.sampling import Sampling

OWN_KEY = "tspcli"
BEST_CHECKPOINT = "best.pth"
_TRUSTED_CLASSES = (argparse.Namespace,)
_ZIP_START = b"PK\x03\x04"
_TORCH_PICKLE_START = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"

_FETCH_AGAIN = "Fetch or save it again."


@dataclass(frozen=True)
class Checkpoint:
    """Weights, and what is known of them.

    Attributes:
        path: The file.
        backbone: Registry name of the backbone that the weights fit.
        heads: The heads that are in the file.
        state: Tensors under official names (``features.``..., ``fc``...).
        layout: ``official``, ``plain`` or ``i3d-numpy``.
        class_names: Of the action head, in the order of its outputs, if the file tells.
        sampling: Of the clips that it was trained on, if the file tells.
        preprocessing: Likewise.
        extra: All else in the file: optimizer, epoch, args and the like.
    """

    path: Path
    backbone: str
    heads: Heads
    state: dict[str, Tensor]
    layout: str
    class_names: tuple[str, ...] | None = None
    sampling: Sampling | None = None
    preprocessing: Preprocessing | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def build_model(self) -> TspModel:
        """A model of this backbone and these heads that holds these weights."""
        with Unfilled():
            model = TspModel(self.backbone, self.heads)
        self.load_into(model)
        return model

    def load_into(self, model: TspModel, *, heads: bool = True) -> None:
        """Copy the weights into a model of the same backbone.

        Args:
            model: Where to.
            heads: Whether the heads are copied too, and therefore have to be the same.

        Raises:
            CheckpointError: If names or shapes differ, with the differences named.
        """
        state = {k: v for k, v in self.state.items() if heads or k.startswith("features.")}
        wanted = {k: v for k, v in model.state_dict().items() if heads or k.startswith("features.")}
        problems = difference(
            {k: tuple(v.shape) for k, v in state.items()},
            {k: tuple(v.shape) for k, v in wanted.items()},
        )
        if problems:
            raise CheckpointError(
                f"{self.path} ({self.backbone}) does not fit the model: {problems}.",
                remedy="Build the model with the checkpoint's backbone and heads.",
            )
        model.load_state_dict(state, strict=False)


@refuses_damage(CheckpointError, "Fetch or save it again.")
def load_checkpoint(path: str | Path, backbone: str | None = None) -> Checkpoint:
    """Read a checkpoint of any known layout.

    Args:
        path: A file, or the folder of a training run (its ``best.pth``).
        backbone: The registry name, if it shall not be found from names and shapes.

    Raises:
        CheckpointError: If there is no such file, if it is damaged, if it needs anything beyond
            tensors and plain containers (which is never loaded), or if it fits no backbone.
    """
    path = Path(path)
    if path.is_dir():
        path = path / BEST_CHECKPOINT
    if not path.is_file():
        raise CheckpointError(
            f"There is no checkpoint {path}.",
            remedy="Give a file, a run's folder, or a name that `tsp weights list` shows.",
        )
    if _is_torch_file(path):
        content = read_torch_file(path)
    else:
        from tspcli.encoders.weight_files import i3d_state_from_numpy, read_numpy_pickle

        state = i3d_state_from_numpy(read_numpy_pickle(path), path)
        content = {"model": state, OWN_KEY: {"backbone": "i3d", "layout": "i3d-numpy"}}
    return _interpret(content, path, backbone)


def _interpret(content: Any, path: Path, backbone: str | None) -> Checkpoint:
    state, rest = _find_state(content, path)
    own = rest.pop(OWN_KEY, None) or {}
    if not isinstance(own, Mapping):
        own = {}
    found: StateLayout = match_layout(state, backbone or own.get("backbone"), path)
    try:
        heads = Heads.from_dict(own["heads"]) if "heads" in own else None
        sampling = Sampling.from_dict(own["sampling"]) if own.get("sampling") else None
        look = own.get("preprocessing")
        preprocessing = Preprocessing.from_dict(look) if look else None
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} describes itself in a way that this version cannot read: {error!r}.",
            remedy="Load it with the version of tspcli that wrote it.",
        ) from error
    if heads is None:
        heads = found.guess_heads(region_alone=_trained_region_alone(rest.get("args")))
    else:
        _require_fit(heads, found, path)
    names = own.get("class_names")
    return Checkpoint(
        path=path,
        backbone=found.backbone,
        heads=heads,
        state=found.state,
        layout=own.get("layout", found.layout),
        class_names=tuple(str(n) for n in names) if names else None,
        sampling=sampling,
        preprocessing=preprocessing,
        extra=rest,
    )


def _require_fit(heads: Heads, found: StateLayout, path: Path) -> None:
    """Refuse heads of other sizes than the tensors: memory would be taken for what is not there."""
    for name, (inputs, outputs) in heads.layers(backbone_spec(found.backbone).feature_dim).items():
        tensor = found.state.get(f"{name}.weight")
        if tensor is None or tuple(tensor.shape) != (outputs, inputs):
            raise CheckpointError(
                f"{path} says that {name} has {inputs} inputs and {outputs} outputs, but holds "
                f"{'none' if tensor is None else tuple(tensor.shape)}.",
                remedy="Fetch or save it again.",
            )


def _trained_region_alone(args: Any) -> bool:
    columns = getattr(args, "label_columns", None)
    return isinstance(columns, list | tuple) and list(columns) == ["temporal-region-label"]


def _find_state(content: Any, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a checkpoint, and everything beside them."""
    if isinstance(content, Mapping):
        for name in ("model", "state_dict"):
            inner = content.get(name)
            if isinstance(inner, Mapping) and _all_tensors(inner):
                return dict(inner), {k: v for k, v in content.items() if k != name}
        if _all_tensors(content):
            return dict(content), {}
    raise CheckpointError(
        f"{path} holds no weights: neither a dict of tensors nor one under 'model'.",
        remedy="Give a checkpoint as torch.save writes it.",
    )


def _all_tensors(mapping: Mapping[Any, Any]) -> bool:
    return bool(mapping) and all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in mapping.items()
    )


def _is_torch_file(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(len(_TORCH_PICKLE_START))
    return start.startswith((_ZIP_START, _TORCH_PICKLE_START)) or not start.startswith(b"\x80")


def read_torch_file(path: Path) -> Any:
    """What ``torch.save`` wrote, with tensors on the CPU; nothing in the file is executed.

    Raises:
        CheckpointError: If the file is damaged or needs a class other than tensors, plain
            containers and ``argparse.Namespace``.
    """
    with path.open("rb") as file:
        start = file.read(len(_TORCH_PICKLE_START))
    if not start:
        raise CheckpointError(f"{path} is damaged: it is empty.", remedy=_FETCH_AGAIN)
    if not start.startswith((_ZIP_START, _TORCH_PICKLE_START)):
        raise CheckpointError(
            f"{path} is no checkpoint: it begins with {start!r}, not as torch.save writes.",
            remedy="Give a checkpoint, a run's folder, or a name that `tsp weights list` shows.",
        )
    try:
        with torch.serialization.safe_globals(list(_TRUSTED_CLASSES)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        needed = _named_class(str(error))
        if needed is None:
            raise CheckpointError(
                f"{path} is damaged or no checkpoint: {first_line(error)}",
                remedy=_FETCH_AGAIN,
            ) from error
        raise CheckpointError(
            f"{path} is refused: to load it, {needed} would have to be imported and run.",
            remedy="Save it again as a dict of tensors (torch.save(model.state_dict(), ...)).",
        ) from error
    except Exception as error:  # whatever torch's reader stumbles over in a damaged file
        raise CheckpointError(
            f"{path} is damaged or no checkpoint: {first_line(error)}",
            remedy=_FETCH_AGAIN,
        ) from error


def _named_class(message: str) -> str | None:
    """The class that torch's loader refuses, from its message."""
    patterns = (
        r"GLOBAL ([\w.]+) was not an allowed global",
        r"unsupported class ([\w.]+)",
        r"add_safe_globals\(\[([\w.]+)\]\)",
        r"Trying to (?:load|call|import)\S* (?:unsupported )?(?:GLOBAL )?([\w]+\.[\w.]+)",
    )
    for pattern in patterns:
        if match := re.search(pattern, message):
            return match.group(1)
    return None


def save_checkpoint(
    path: str | Path,
    model: TspModel,
    *,
    backbone: str,
    class_names: tuple[str, ...] | None = None,
    sampling: Sampling | None = None,
    preprocessing: Preprocessing | None = None,
    args: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint in the official layout; the file appears whole or not at all.

    Args:
        path: Where to. What is there is replaced.
        model: Its state dict goes under ``model``.
        backbone: Its registry name.
        class_names: Of the action head.
        sampling: Of the clips trained on.
        preprocessing: Of the frames trained on.
        args: Plain values, stored as the ``argparse.Namespace`` that official scripts expect.
        extra: Further plain values and tensors (``optimizer``, ``epoch`` ...), kept beside.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    own: dict[str, Any] = {"backbone": backbone, "heads": model.heads.to_dict()}
    if class_names is not None:
        own["class_names"] = list(class_names)
    if sampling is not None:
        own["sampling"] = sampling.to_dict()
    if preprocessing is not None:
        own["preprocessing"] = preprocessing.to_dict()
    content: dict[str, Any] = {**(extra or {}), "model": model.state_dict(), OWN_KEY: own}
    content["args"] = argparse.Namespace(**{"backbone": backbone, **(args or {})})
    write_torch_file(Path(path), content)


def write_torch_file(path: Path, content: Any) -> None:
    """``torch.save`` beside the path, sync, rename.

    Raises:
        CheckpointError: If the file cannot be written; what was there before stays.
    """
    try:
        # Through a file object: torch writes the name of a path into the archive.
        with replacing(path, error=CheckpointError) as aside, aside.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} cannot be written: {first_line(error)}",
            remedy="Check the free space, and that you may write there.",
        ) from error
