"""Proposals and training are exact on GPUs, where torch would round convolutions to TF32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.builders.gpus import Gpus
from tests.builders.refusals import refused
from tests.localization.planted import plant
from tests.localization.test_train import CPU, SHORT
from tspcli.annotations import Annotations
from tspcli.core.arithmetic import cuda_arithmetic
from tspcli.errors import UsageError
from tspcli.localization import prediction, training
from tspcli.localization.boundary_matching import Bmn


def test_the_network_never_computes_in_tf32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside: list[bool] = []
    seen: list[bool] = []

    @contextmanager
    def watched(*, tf32: bool) -> Iterator[None]:
        inside.append(tf32)
        try:
            yield
        finally:
            inside.pop()

    forward = Bmn.forward

    def observed(model: Bmn, features: torch.Tensor) -> Any:
        seen.append(inside[-1:] == [False])
        return forward(model, features)

    monkeypatch.setattr(Bmn, "forward", observed)
    for module in (training, prediction):
        monkeypatch.setattr(module, "cuda_arithmetic", watched)
    annotations = plant(tmp_path / "f.h5", 4, seed=1)
    training.train(tmp_path / "f.h5", annotations, tmp_path / "run", config=SHORT)
    n_trained = len(seen)
    list(prediction.predict(tmp_path / "run", tmp_path / "f.h5", config=CPU))
    assert 0 < n_trained < len(seen) and all(seen)


@pytest.mark.parametrize("tf32", [False, True])
def test_torch_is_left_as_it_was(tf32: bool) -> None:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    with cuda_arithmetic(tf32=tf32):
        assert (matmul.allow_tf32, cudnn.allow_tf32) == (tf32, tf32)
    assert (matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark) == before


@pytest.mark.parametrize("step", ["train", "predict"])
def test_a_device_that_cannot_be_used_is_refused(gpus: Gpus, tmp_path: Path, step: str) -> None:
    gpus((7, 0))
    run = {
        "train": lambda: training.train(
            tmp_path / "f.h5", Annotations(), tmp_path / "run", config=replace(SHORT, device="cuda")
        ),
        "predict": lambda: list(
            prediction.predict(
                tmp_path / "run", tmp_path / "f.h5", config=replace(CPU, device="cuda")
            )
        ),
    }
    with refused(UsageError, option="device", value="cuda"):
        run[step]()
