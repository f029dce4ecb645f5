"""A run's folder with a small encoder in it, and both ways to convolve."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tspcli.encoders import fused, save_checkpoint
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


@pytest.fixture(params=["fused", "portable"])
def convolutions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to convolve: oneDNN's fused operations, and torch's public ones."""
    if request.param == "fused" and not fused.has_fused_convolutions():
        pytest.skip("this build of torch has no fused convolutions")
    if request.param == "portable":
        monkeypatch.setattr(fused, "has_fused_convolutions", lambda dtype: False)
    return str(request.param)
