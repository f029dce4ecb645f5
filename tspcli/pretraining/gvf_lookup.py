"""The global features of a run: are they what the recipe says, and which is whose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tspcli.core.files import file_sha256
from tspcli.encoders.backbones import BACKBONES, BackboneSpec, backbone_spec
from tspcli.encoders.checkpoints import load_checkpoint
from tspcli.encoders.weights import checkpoint_file, find_weights
from tspcli.errors import TrainingError, WeightsError
from tspcli.pretraining.training_recipe import Recipe, load_recipe
from tspcli.pretraining.training_segments import TrainingSegments
from tspcli.recipes.catalog import recipe_names
from tspcli.store.gvf import GlobalFeatures, read_gvf


class _Named(NamedTuple):
    """The weights that a recipe names for the global features.

    Attributes:
        dim: Width of their features.
        backbone: Theirs.
        sha256: As many of its digits as are known.
        filename: Of the file.
    """

    dim: int
    backbone: str
    sha256: str
    filename: str


def check_gvf(
    path: Path | None, recipe: Recipe, spec: BackboneSpec
) -> tuple[GlobalFeatures | None, list[str]]:
    """The global features, if they are what the recipe says, and warnings.

    Raises:
        TrainingError: If they are missing or not wanted, of the wrong width or pooling, or made by
            another encoder.
        CheckpointError: If the recipe names a file of weights that cannot be read.
    """
    if recipe.gvf_pool == "none":
        if path is not None:
            raise TrainingError(
                f"The recipe does without global features, but {path} is given.",
                remedy="Set gvf_pool to max or mean (--gvf-pool), or leave --gvf out.",
            )
        return None, []
    if path is None:
        raise TrainingError(
            f"The recipe wants {recipe.gvf_pool} global features, and none are given.",
            remedy="Make them with `tsp gvf` and give --gvf, or do without: --gvf-pool none.",
            option="gvf",
        )
    features = read_gvf(path)
    named = _named_weights(recipe.gvf_weights)
    if named is not None:
        expected, encoder = named.dim, named.backbone
    else:
        encoder = features.metadata.encoder or ""
        encoder = encoder if encoder in BACKBONES else recipe.backbone
        expected = backbone_spec(encoder).feature_dim
    if features.dim != expected:
        raise TrainingError(
            f"{path} has global features of {features.dim} values; those of {encoder} have "
            f"{expected}.",
            remedy="Make them with the encoder that the recipe names, or name yours: "
            "--gvf-weights.",
        )
    if features.pool is None:
        return features, [
            f"{path} does not say which encoder made it or how it was pooled; taken for "
            f"{recipe.gvf_pool} features of {recipe.gvf_weights or encoder}."
        ]
    if features.pool != recipe.gvf_pool:
        raise TrainingError(
            f"{path} was pooled by {features.pool}, the recipe says {recipe.gvf_pool}.",
            remedy=f"Give --gvf-pool {features.pool}, or another file.",
        )
    _require_encoder(features, recipe.gvf_weights, named)
    sampling = features.metadata.sampling
    if sampling is not None and sampling.stride != sampling.clip_length:
        return features, [
            f"{path} was pooled over clips at stride {sampling.stride}; the official features are "
            f"pooled over clips that do not overlap ({sampling.clip_length})."
        ]
    return features, []


def with_gvf_weights(recipe: Recipe, path: Path | None) -> tuple[Recipe, list[str]]:
    """The recipe with the encoder that the global features name, and a warning if it changed.

    Our recipes name the encoder of the official features. Whoever names one himself, in a file or
    with ``--gvf-weights``, means it: :func:`check_gvf` then refuses another.
    """
    if path is None or recipe.gvf_pool == "none" or not path.is_file():
        return recipe, []
    if recipe.name not in recipe_names("training"):
        return recipe, []
    chosen = {"backbone": recipe.backbone, "gvf_pool": recipe.gvf_pool}
    features = read_gvf(path)
    made = features.metadata.weights
    if made is None or load_recipe(recipe.name, chosen).gvf_weights != recipe.gvf_weights:
        return recipe, []
    try:
        _require_encoder(features, recipe.gvf_weights, _named_weights(recipe.gvf_weights))
    except TrainingError:
        text = (
            f"{path} was made with {made}, and the recipe {recipe.name} is for features of "
            f"{recipe.gvf_weights}: {made} is taken."
        )
        return replace(recipe, gvf_weights=made), [text]
    return recipe, []


def _named_weights(weights: str) -> _Named | None:
    """What is known of weights by name, checkpoint or run folder; None if that is nothing."""
    if not weights:
        return None
    path = Path(weights)
    if path.exists():
        file = checkpoint_file(path)
        backbone = load_checkpoint(file).backbone
        return _Named(backbone_spec(backbone).feature_dim, backbone, file_sha256(file), file.name)
    try:
        entry = find_weights(weights)
    except WeightsError:
        return None
    return _Named(entry.feature_dim, entry.backbone, entry.sha256, entry.name)


def _require_encoder(features: GlobalFeatures, wanted: str, named: _Named | None) -> None:
    """See that features come from the weights that the recipe names, by content where it is known.

    Raises:
        TrainingError: If they do not.
    """
    path, made = features.path, features.metadata
    if not wanted or made.weights is None:
        return
    sha256 = made.settings.get("weights_sha256")
    if named is not None and sha256 is not None:
        if not str(sha256).startswith(named.sha256):
            raise TrainingError(
                f"{path} was made with {made.weights} (sha256 {str(sha256)[:8]}…), the recipe says "
                f"{wanted} (sha256 {named.sha256[:8]}…).",
                remedy="Give --gvf-weights with the weights that made it, or another file.",
            )
        return
    name = Path(wanted).name if named is None else named.filename
    if name != Path(made.weights).name:
        raise TrainingError(
            f"{path} was made with {made.weights}, the recipe says {wanted}.",
            remedy=f"Give --gvf-weights {made.weights} to accept it, or another file.",
        )
    if named is not None and made.encoder not in (None, named.backbone):
        raise TrainingError(
            f"{path} was made by a {made.encoder}, the recipe says {named.backbone}.",
            remedy="Give another file.",
        )


def gvf_rows(
    table: TrainingSegments, vectors: Mapping[str, npt.NDArray[np.float32]]
) -> npt.NDArray[np.float32]:
    """The global features of a table's videos, one row per video; NaN where there are none.

    A video's key is its file's name, or that without its extension.
    """
    dim = len(next(iter(vectors.values())))
    rows = np.full((len(table.filenames), dim), np.nan, dtype=np.float32)
    for place, filename in enumerate(table.filenames):
        for key in (filename, Path(filename).stem):
            if key in vectors:
                rows[place] = vectors[key]
                break
    return rows
