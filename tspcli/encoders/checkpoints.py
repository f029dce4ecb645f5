"""Checkpoints: loaded into a model, and saved in the official layout.

Layouts that are read:

* official TSP: a dict with ``model`` and perhaps ``optimizer``, ``lr_scheduler``, ``epoch`` and
  ``args`` (an ``argparse.Namespace``); weights under ``features.``, heads under ``fc`` or under
  ``fc1`` and ``fc2``;
* plain: a dict of tensors as torchvision and IG-65M publish them (``stem.``, ``layer1.``, ``fc.``),
  from ``torch.save`` or in safetensors;
* nested numpy arrays, for the backbones whose spec can read them (I3D).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tspcli.core.files import replacing
from tspcli.core.text import first_line, refuses_damage
from tspcli.encoders.backbones import backbone_spec, usable_specs
from tspcli.encoders.preprocessing import Preprocessing
from tspcli.encoders.state_dicts import OFFICIAL_PREFIX, SkipInit, difference, identify, shapes_of
from tspcli.encoders.tsp_model import Heads, TspModel
from tspcli.encoders.weight_files import read_weight_file
from tspcli.encoders.weights import checkpoint_file
from tspcli.errors import CheckpointError
from tspcli.sampling import Sampling

OWN_KEY = "tspcli"
_STATE_KEYS = ("model", "state_dict", "module", "model_state")
"""Where training programs put the tensors."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights, and what their file states about them.

    Attributes:
        path: The file.
        backbone: Name of the backbone that the weights fit.
        heads: The heads in the file.
        state: Tensors under official names (``features.``..., ``fc``...).
        layout: ``official``, ``plain`` or ``i3d-numpy``.
        class_names: Of the action head, in the order of its outputs; None if the file lacks them.
        sampling: Of the clips that it was trained on; None if the file does not state it.
        preprocessing: Likewise, of the frames.
        extra: Everything else in the file: optimizer, epoch, args and the like.
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
        """A model with this backbone and these heads that holds these weights."""
        with SkipInit():
            model = TspModel(self.backbone, self.heads)
        self.load_into(model)
        return model

    def load_into(self, model: TspModel, *, heads: bool = True) -> None:
        """Copy the weights into a model of the same backbone.

        Args:
            model: The model.
            heads: Whether the heads are copied too, and therefore have to be the same.

        Raises:
            CheckpointError: If names or shapes differ; the message names the differences.
        """
        state, wanted = (
            {k: v for k, v in tensors.items() if heads or k.startswith(OFFICIAL_PREFIX)}
            for tensors in (self.state, model.state_dict())
        )
        if problems := difference(shapes_of(state), shapes_of(wanted)):
            raise CheckpointError(
                f"{self.path} ({self.backbone}) does not fit the model: {problems}.",
                remedy="Build the model with the checkpoint's backbone and heads.",
                path=self.path,
                differences=problems,
            )
        model.load_state_dict(state, strict=False)


@refuses_damage(CheckpointError, "Fetch or save it again.")
def load_checkpoint(path: str | Path, backbone: str | None = None) -> Checkpoint:
    """Read a checkpoint of any known layout.

    Args:
        path: A file, or the folder of a training run (its ``best.pth``).
        backbone: Name of the backbone, if it should not be inferred from names and shapes.

    Raises:
        CheckpointError: If there is no such file, if it is damaged, if it needs anything beyond
            tensors and plain containers (which is never loaded), or if it fits no backbone.
        UsageError: If there is no such backbone.
    """
    path = checkpoint_file(path)
    if not path.is_file():
        raise CheckpointError(
            f"There is no checkpoint {path}.",
            remedy="Give a file, a run's folder, or a name that `tsp weights list` shows.",
            path=path,
        )
    form, content = read_weight_file(path)
    if form == "numpy":
        content = _from_arrays(content, path, backbone)
    state, rest = _find_state(content, path)
    own = rest.pop(OWN_KEY, None)
    own = own if isinstance(own, Mapping) else {}
    try:
        heads = Heads.from_dict(own["heads"]) if "heads" in own else None
        sampling = Sampling.from_dict(own["sampling"]) if own.get("sampling") else None
        look = own.get("preprocessing")
        preprocessing = Preprocessing.from_dict(look) if look else None
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} describes itself in a way that this version cannot read: {error!r}.",
            remedy="Load it with the version of tspcli that wrote it.",
            path=path,
        ) from error
    found = identify(
        state,
        path,
        backbone=backbone or own.get("backbone"),
        heads=heads,
        region_alone=_trained_region_alone(rest.get("args")),
    )
    names = own.get("class_names")
    return Checkpoint(
        path=path,
        backbone=found.backbone,
        heads=found.heads,
        state=found.state,
        layout=own.get("layout", found.layout),
        class_names=tuple(str(n) for n in names) if names else None,
        sampling=sampling,
        preprocessing=preprocessing,
        extra=rest,
    )


def _from_arrays(tree: Any, path: Path, backbone: str | None) -> dict[str, Any]:
    """Nested numpy arrays as the content of a checkpoint, by the first backbone that reads them."""
    refusal: CheckpointError | None = None
    for spec in usable_specs() if backbone is None else [backbone_spec(backbone)]:
        if spec.from_arrays is None:
            continue
        try:
            state = spec.from_arrays(tree, path)
        except CheckpointError as error:
            refusal = refusal or error
            continue
        own = {"backbone": spec.name, "layout": f"{spec.name}-numpy"}
        return {"model": state, OWN_KEY: own}
    raise refusal or CheckpointError(
        f"{path} holds numpy arrays, which cannot be loaded into {backbone}.",
        path=path,
        backbone=backbone,
    )


def _trained_region_alone(args: Any) -> bool:
    columns = getattr(args, "label_columns", None)
    return isinstance(columns, list | tuple) and list(columns) == ["temporal-region-label"]


def _find_state(content: Any, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a checkpoint, and everything else in it."""
    if isinstance(content, Mapping):
        for name in _STATE_KEYS:
            inner = content.get(name)
            if isinstance(inner, Mapping) and _all_tensors(inner):
                return dict(inner), {k: v for k, v in content.items() if k != name}
        if _all_tensors(content):
            return dict(content), {}
    raise CheckpointError(
        f"{path} contains no weights: neither a dict of tensors nor one under 'model'.",
        path=path,
    )


def _all_tensors(mapping: Mapping[Any, Any]) -> bool:
    return bool(mapping) and all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in mapping.items()
    )


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
    """Write a checkpoint in the official layout; the file appears complete or not at all.

    Args:
        path: The file; it is replaced if it exists.
        model: Its state dict goes under ``model``.
        backbone: Name of its backbone.
        class_names: Of the action head.
        sampling: Of the clips trained on.
        preprocessing: Of the frames trained on.
        args: Plain values, stored as the ``argparse.Namespace`` that official scripts expect.
        extra: Further plain values and tensors (``optimizer``, ``epoch`` ...).

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
    """``torch.save``; the file appears complete or not at all.

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
