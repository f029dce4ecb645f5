"""A run's folder with a small encoder in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tspcli.encoders import save_checkpoint
from tspcli.encoders.tsp_model import Heads, TspModel
from tspcli.sampling import Sampling


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(1)
    save_checkpoint(
        folder / "best.pth",
        TspModel("tiny", Heads(3, region=True, gvf_dim=128)),
        backbone="tiny",
        class_names=("walk", "run", "jump"),
        sampling=Sampling(stride=8),
    )
    return folder
