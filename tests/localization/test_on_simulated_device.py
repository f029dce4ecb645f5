"""Localization on a simulated GPU: it learns and finds what it does on a CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tests.builders.simulated_accelerator import Machine
from tests.builders.simulated_torch import simulated
from tests.localization.planted import plant
from tests.localization.test_train import CPU, SHORT
from tspcli.localization import predict, train
from tspcli.localization.localizer import load_localizer


def test_training_and_prediction(tmp_path: Path) -> None:
    annotations = plant(tmp_path / "f.h5", 4, seed=1)
    config = replace(SHORT, epochs=1, device="cpu")
    train(tmp_path / "f.h5", annotations, tmp_path / "cpu", config=config)
    expected = list(predict(tmp_path / "cpu", tmp_path / "f.h5", config=CPU))
    localizer = load_localizer(tmp_path / "cpu")
    with simulated(Machine(n_devices=2, order="random", seed=5)):
        gpu = replace(config, device="cuda:1")
        train(tmp_path / "f.h5", annotations, tmp_path / "gpu", config=gpu)
        found = list(predict(localizer, tmp_path / "f.h5", config=replace(CPU, device="cuda:1")))
    one = load_localizer(tmp_path / "cpu").model.state_dict()
    other = load_localizer(tmp_path / "gpu").model.state_dict()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, atol=1e-4, rtol=1e-3)
    assert [video.key for video in found] == [video.key for video in expected]
    for here, there in zip(found, expected, strict=True):
        scores = [[item.score for item in video.predictions] for video in (here, there)]
        np.testing.assert_allclose(scores[0], scores[1], atol=1e-4)
