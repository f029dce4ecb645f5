"""A small rendered data set with its tables, shared by the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reproduction.synthetic import SyntheticSpec, render_dataset
from tspcli.annotations import read_actions
from tspcli.annotations.convert import convert
from tspcli.annotations.training_tables import probe_folder
from tspcli.pretraining.training_recipe import Execution, Recipe
from tspcli.sampling import Sampling
from tspcli.store import StoreMetadata
from tspcli.store.gvf import write_gvf

FAST = Recipe(
    name="test",
    backbone="tiny",
    init="random",
    gvf_pool="none",
    clip_length=4,
    clips_per_segment=2,
    resize=(40, 52),
    crop=(32, 32),
    epochs=2,
    batch_size=5,
    stem_lr=0.001,
    backbone_lr=0.002,
    head_lr=0.01,
    warmup_epochs=1,
    milestones=(1,),
    gamma=0.5,
    seed=3,
)
"""Seconds for a whole run, on tiny clips; the stem is trained so that nothing is left out."""

QUIET = Execution(
    device="cpu", workers=0, checkpoint_every_s=0, tensorboard=False, log_every_steps=1
)


@dataclass(frozen=True)
class SmallSet:
    """Rendered videos and their tables.

    Attributes:
        videos: The folder, with ``train`` and ``valid`` below.
        train, valid, labels: Tables and label mapping.
        gvf: Global features for a tiny backbone, with provenance.
    """

    videos: Path
    train: Path
    valid: Path
    labels: Path
    gvf: Path

    def arguments(self, **others: Any) -> dict[str, Any]:
        """Arguments of :func:`pretrain`."""
        return {
            "videos": [self.videos],
            "train": self.train,
            "valid": self.valid,
            "labels": self.labels,
            "recipe": FAST,
            "execution": QUIET,
            **others,
        }


@pytest.fixture(scope="session")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> SmallSet:
    folder = tmp_path_factory.mktemp("small_set")
    spec = SyntheticSpec(
        {"train": 3, "valid": 2},
        duration_s=(6, 8),
        action_s=(1.0, 1.5),
        gap_s=(0.6, 1.0),
        height=48,
        width=64,
    )
    render_dataset(spec, folder)
    entries = {name: probe_folder(folder / name).videos for name in ("train", "valid")}
    report = convert(read_actions(folder / "actions.csv"), entries, folder, min_gap_s=0.4)
    rng = np.random.default_rng(5)
    from tspcli.encoders.backbones import backbone_spec

    width = backbone_spec("tiny").feature_dim
    stems = [entry.stem for split in entries.values() for entry in split]
    vectors = {stem: rng.normal(size=width).astype(np.float32) for stem in stems}
    metadata = StoreMetadata.build(
        sampling=Sampling(), encoder={"backbone": "tiny", "weights": "tiny-weights"}
    )
    write_gvf(folder / "gvf.h5", vectors, pool="max", metadata=metadata)
    return SmallSet(
        folder,
        report.subsets["train"].groundtruth,
        report.subsets["valid"].groundtruth,
        report.labels,
        folder / "gvf.h5",
    )


@pytest.fixture(autouse=True)
def few_threads() -> None:
    """The machine's other tests want cores too, and tiny tensors gain nothing by threads."""
    torch.set_num_threads(1)


@pytest.fixture
def with_gvf(small_set: SmallSet) -> Callable[..., dict[str, Any]]:
    """Arguments of a run with global features."""

    def arguments(**others: Any) -> dict[str, Any]:
        recipe = replace(FAST, gvf_pool="max", gvf_weights="tiny-weights")
        return small_set.arguments(recipe=recipe, gvf=small_set.gvf, **others)

    return arguments
