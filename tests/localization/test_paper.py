"""The values and formulas of BMN (Lin et al., ICCV 2019) that stand as defaults."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.localization.planted import plant
from tests.localization.test_train import SHORT
from tspcli.localization import localizer as checkpoints
from tspcli.localization.boundary_matching import BmnOutput, BmnTargets, bmn_loss
from tspcli.localization.feature_windows import Window
from tspcli.localization.localize_config import (
    LossConfig,
    PredictConfig,
    TrainConfig,
)
from tspcli.localization.localizer import Localizer
from tspcli.localization.prediction import propose_in_windows
from tspcli.localization.training import train


def test_defaults_are_those_of_the_paper_and_of_its_authors() -> None:
    config = TrainConfig().to_dict()
    assert config["model"] == {
        "temporal_scale": 100,
        "max_duration": None,
        "n_samples": 32,
        "samples_per_bin": 3,
        "boundary_ratio": 0.5,
        "base_channels": 256,
        "hidden_channels": 128,
        "proposal_channels": 512,
        "map_channels": 128,
    }
    assert config["labels"]["region_ratio"] == 0.1
    assert config["loss"] == {
        "boundary_positive": 0.5,
        "proposal_positive": 0.9,
        "regression_high": 0.7,
        "regression_low": 0.3,
        "regression_weight": 10.0,
    }
    steps = ("epochs", "batch_size", "learning_rate", "drop_epoch", "weight_decay", "window_s")
    assert [config[name] for name in steps] == [9, 16, 1e-3, 7, 1e-4, None]
    chosen = asdict(PredictConfig())
    names = ("peak_ratio", "nms_sigma", "nms_low", "nms_high", "max_proposals")
    assert [chosen[name] for name in names] == [0.5, 0.4, 0.55, 0.9, 100]


def test_the_rate_drops_after_its_epoch(tmp_path: Path) -> None:
    learned = plant(tmp_path / "a.h5", 3, seed=1)
    groups: dict[int, dict[str, Any]] = {}
    for epochs in (1, 2, 3):
        config = replace(SHORT, epochs=epochs, drop_epoch=2, learning_rate=1e-3)
        run = train(tmp_path / "a.h5", learned, tmp_path / f"run{epochs}", config=config).run
        (groups[epochs],) = checkpoints.load(run / "last.pth")["optimizer"]["param_groups"]
    assert [groups[epoch]["lr"] for epoch in (1, 2, 3)] == pytest.approx([1e-3, 1e-3, 1e-4])
    assert {group["weight_decay"] for group in groups.values()} == {1e-4}


def logit(chance: float) -> float:
    return float(np.log(chance / (1 - chance)))


def test_the_score_is_both_boundaries_and_the_root_of_both_confidences() -> None:
    start, end, right, overlap = 0.8, 0.6, 0.9, 0.4
    line, map_ = torch.ones(1, 1), torch.ones(1, 1, 1)
    output = BmnOutput(
        logit(start) * line, logit(end) * line, logit(right) * map_, logit(overlap) * map_
    )
    localizer = Localizer(lambda cells: output, TrainConfig())  # type: ignore[arg-type]  # no network
    window = Window("v", 0.0, 1.0, 1.0)
    batch = [(window, np.zeros((1, 3), np.float32))]
    ((_, proposals),) = propose_in_windows(localizer, batch, PredictConfig(), torch.device("cpu"))
    expected = start * end * np.sqrt(right * overlap)
    np.testing.assert_allclose(proposals.score, [expected], rtol=1e-6)


def weighted_logistic(chances: list[float], right: list[bool]) -> float:
    """The paper's L_bl, term by term."""
    n, n_right = len(right), sum(right)
    total = 0.0
    for chance, positive in zip(chances, right, strict=True):
        weight = n / n_right if positive else n / (n - n_right)
        total += weight * np.log(chance if positive else 1 - chance)
    return -total / n


def test_the_loss_is_that_of_the_paper() -> None:
    chances = [0.2, 0.7, 0.4, 0.9, 0.6, 0.3]
    labels = [0.0, 0.5, 0.51, 1.0, 0.49, 0.2]
    iou = [0.0, 0.3, 0.31, 0.7, 0.71, 0.9]
    other = [0.91, 0.9, 0.1, 0.5, 0.65, 0.8]
    logits = torch.tensor([logit(chance) for chance in chances], dtype=torch.float64)
    for overlaps in (iou, other):
        overlaps = [*overlaps[:5], 0.95]
        valid = torch.ones(1, 6, dtype=torch.bool)
        flat, cube = logits.view(1, 6), logits.view(1, 1, 6)
        boundary = torch.tensor([labels], dtype=torch.float64)
        targets = BmnTargets(
            boundary,
            boundary.flip(1),
            torch.tensor([[overlaps]], dtype=torch.float64),
            valid,
        )
        loss = bmn_loss(BmnOutput(flat, flat, cube, cube), targets, LossConfig())
        is_boundary = [label > 0.5 for label in labels]
        tem = weighted_logistic(chances, is_boundary)
        tem += weighted_logistic(chances, is_boundary[::-1])
        right = weighted_logistic(chances, [value > 0.9 for value in overlaps])
        errors = [(c - g) ** 2 for c, g in zip(chances, overlaps, strict=True)]
        bands = [
            np.mean([e for e, g in zip(errors, overlaps, strict=True) if low < g <= high])
            for low, high in ((0.7, 1.0), (0.3, 0.7), (-1.0, 0.3))
        ]
        assert float(loss.boundary) == pytest.approx(tem)
        assert float(loss.classification) == pytest.approx(right)
        assert float(loss.regression) == pytest.approx(np.mean(bands))
        assert float(loss.total) == pytest.approx(tem + right + 10 * np.mean(bands))
