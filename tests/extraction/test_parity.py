"""The features are those of the slow reference, by every decoder and in every precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from tests.builders.videos import make_video
from tests.extraction import reference
from tspcli.encoders import load_encoder
from tspcli.extraction import ExtractConfig, extract
from tspcli.store import open_store

SAME_PIXELS = 1e-4
OTHER_DECODER = 5e-3
AUTO = 1e-2


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parity") / "v_parity.mp4"
    make_video(path, fps=25, n_frames=140, width=320, height=240)
    return path


@pytest.fixture(scope="module")
def module() -> torch.nn.Module:
    """torchvision's own r2plus1d_18 with random but lively weights."""
    torch.manual_seed(3)
    network = torchvision.models.video.r2plus1d_18(weights=None)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm3d):
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.uniform_(layer.bias, -0.2, 0.2)
            torch.nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return network.eval()


@pytest.fixture(scope="module")
def checkpoint(module: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights in the official layout, with both heads."""
    state = {
        f"features.{name}": value
        for name, value in module.state_dict().items()
        if not name.startswith("fc.")
    }
    state.update({"fc1.weight": torch.randn(200, 512), "fc1.bias": torch.zeros(200)})
    state.update({"fc2.weight": torch.randn(2, 1024), "fc2.bias": torch.zeros(2)})
    path = tmp_path_factory.mktemp("weights") / "official.pth"
    torch.save({"model": state, "epoch": 5}, path)
    return path


@pytest.fixture(scope="module")
def expected(video: Path, module: torch.nn.Module) -> np.ndarray:
    headless = torch.nn.Sequential(
        module.stem, module.layer1, module.layer2, module.layer3, module.layer4,
        torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten(),
    )  # fmt: skip
    return reference.features(video, headless.eval(), stride=16)


@pytest.mark.parametrize(
    ("decoder", "precision", "bar"),
    [
        ("pyav", "fp32", SAME_PIXELS),
        ("decord", "fp32", OTHER_DECODER),
        ("torchcodec", "fp32", OTHER_DECODER),
        ("auto", "auto", AUTO),
    ],
)
def test_features_equal_the_reference(
    video: Path, checkpoint: Path, expected: np.ndarray, tmp_path: Path,
    decoder: str, precision: str, bar: float,
) -> None:  # fmt: skip
    if decoder in ("decord", "torchcodec"):
        pytest.importorskip(decoder, exc_type=Exception)
    config = ExtractConfig(
        weights=str(checkpoint), decoder=decoder, precision=precision, device="cpu", workers=1
    )
    report = extract(video, tmp_path / "feats.h5", config=config)
    assert not report.failed, report.failed
    with open_store(tmp_path / "feats.h5") as store:
        rows = store["v_parity"].rows
        assert decoder in ("auto", store["v_parity"].attrs["decoder"])
    assert rows.shape == expected.shape
    assert reference.relative_error(rows, expected) <= bar


def test_the_reference_is_not_blind(video: Path, expected: np.ndarray) -> None:
    """Neighbouring clips differ by far more than the bars, so a wrong clip cannot pass."""
    moved = np.linalg.norm(expected[1:] - expected[:-1], axis=1)
    assert (moved / np.linalg.norm(expected[1:], axis=1)).min() > 2 * AUTO


def test_rows_do_not_depend_on_batching(video: Path, checkpoint: Path, tmp_path: Path) -> None:
    encoder = load_encoder(checkpoint, device="cpu", precision="fp32")
    rows = []
    for batch_size in (1, 3):
        out = tmp_path / f"b{batch_size}.h5"
        extract(video, out, encoder=encoder, batch_size=batch_size, stride=12)
        with open_store(out) as store:
            rows.append(store["v_parity"].rows)
    assert reference.relative_error(rows[0], rows[1]) <= 1e-5


@pytest.mark.parametrize("stride", [1, 4])
def test_dense_rows_are_those_of_clips_alone(video: Path, tmp_path: Path, stride: int) -> None:
    encoder = load_encoder("random", backbone="tiny", device="cpu", precision="fp32", seed=1)
    extract(video, tmp_path / "dense.h5", encoder=encoder, stride=stride)
    with open_store(tmp_path / "dense.h5") as store:
        rows = store["v_parity"].rows
    expected = reference.features(video, encoder.module.features, stride=stride)
    assert rows.shape == expected.shape
    assert reference.relative_error(rows, expected) <= SAME_PIXELS
