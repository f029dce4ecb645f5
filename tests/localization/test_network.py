from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from tests.localization.reference import sampled_features
from tspcli.errors import LocalizationError, UsageError
from tspcli.localization.boundary_matching import (
    Bmn,
    BmnOutput,
    BmnTargets,
    BoundaryMatching,
    balanced_logistic,
    balanced_square,
    bmn_loss,
    sampling_matrix,
)
from tspcli.localization.localize_config import BmnConfig, LossConfig
from tspcli.localization.training_windows import valid_proposals


def sampled_map(sequence: np.ndarray, config: BmnConfig) -> np.ndarray:
    """(C, N, D, T), zero where a proposal leaves the grid, by plain loops."""
    n_cells, durations = config.temporal_scale, config.durations
    out = np.zeros((len(sequence), config.n_samples, durations, n_cells))
    for duration in range(1, durations + 1):
        for start in range(n_cells - duration + 1):
            out[:, :, duration - 1, start] = sampled_features(
                sequence,
                start,
                duration,
                config.n_samples,
                config.samples_per_bin,
                config.boundary_ratio,
            )
    return out


@given(
    n_cells=st.integers(1, 9),
    share=st.floats(0.01, 1),
    n_samples=st.integers(1, 5),
    per_bin=st.integers(1, 3),
    ratio=st.sampled_from([0.0, 0.25, 0.5, 1.3]),
)
def test_sampling_is_that_of_plain_loops(
    n_cells: int, share: float, n_samples: int, per_bin: int, ratio: float
) -> None:
    config = BmnConfig(n_cells, max(1, int(share * n_cells)), n_samples, per_bin, ratio)
    sequence = np.random.default_rng(n_cells).normal(size=(3, n_cells))
    matrix = sampling_matrix(config).to_dense().double().numpy()
    matrix = matrix.reshape(config.durations, n_cells, n_samples, n_cells)
    sampled = np.einsum("ct,dint->cndi", sequence, matrix)
    np.testing.assert_allclose(sampled, sampled_map(sequence, config), atol=1e-5)


def test_the_fused_layer_is_sampling_and_then_convolution() -> None:
    config = BmnConfig(temporal_scale=12, max_duration=7, n_samples=6)
    torch.manual_seed(0)
    layer = BoundaryMatching(5, 4, config)
    sequences = torch.randn(3, 5, 12, requires_grad=True)
    sampled = np.stack([sampled_map(s, config) for s in sequences.detach().numpy()])
    kernel = layer.weight[:, :, :, None, None]
    expected = functional.conv3d(torch.from_numpy(sampled).float(), kernel, layer.bias).squeeze(2)
    torch.testing.assert_close(layer(sequences), expected, atol=1e-5, rtol=1e-5)


def test_the_fused_layer_has_the_right_gradients() -> None:
    config = BmnConfig(temporal_scale=6, max_duration=4, n_samples=3)
    layer = BoundaryMatching(2, 3, config).double()
    sequences = torch.randn(2, 2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (sequences,), fast_mode=True)

    weights = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    (layer(sequences) * weights).sum().backward()
    sampled = np.stack([sampled_map(s, config) for s in sequences.detach().numpy()])
    expected = np.einsum("bodi,bcndi->ocn", weights.numpy(), sampled)
    # The matrix is stored in single precision.
    np.testing.assert_allclose(layer.weight.grad.numpy(), expected, atol=1e-5)


@pytest.mark.gpu
def test_the_fused_layer_is_the_same_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    layer = BoundaryMatching(16, 8, BmnConfig(temporal_scale=20, n_samples=8))
    sequences = torch.randn(2, 16, 20)
    expected = layer(sequences)
    torch.testing.assert_close(layer.cuda()(sequences.cuda()).cpu(), expected, atol=1e-4, rtol=1e-4)


def test_the_network_takes_any_scale_and_width() -> None:
    for n_cells, durations in ((5, None), (16, 4)):
        config = BmnConfig(n_cells, durations, 4, 1, **BmnConfig.widths(16))
        output = Bmn(7, config)(torch.randn(2, 7, n_cells))
        assert output.start.shape == output.end.shape == (2, n_cells)
        expected = (2, durations or n_cells, n_cells)
        assert output.classification.shape == output.regression.shape == expected
    with pytest.raises(LocalizationError, match=r"\(2, 8, 16\).*7, 16"):
        Bmn(7, config)(torch.randn(2, 8, 16))


def test_standardized_features_need_no_scale() -> None:
    config = BmnConfig(8, n_samples=4, **BmnConfig.widths(16))
    torch.manual_seed(0)
    plain = Bmn(3, config)
    scaled = Bmn(3, config)
    scaled.load_state_dict(plain.state_dict())
    scaled.standardize(torch.tensor([5.0, 0.0, 1.0]), torch.tensor([2.0, 10.0, 0.0]))
    features = torch.randn(1, 3, 8)
    moved = features * torch.tensor([2.0, 10.0, 1.0])[:, None]
    moved = moved + torch.tensor([5.0, 0.0, 1.0])[:, None]
    torch.testing.assert_close(scaled(moved).start, plain(features).start)


def test_impossible_networks_are_refused() -> None:
    with pytest.raises(UsageError, match="120 cells"):
        BmnConfig(temporal_scale=100, max_duration=120)
    with pytest.raises(UsageError, match="n_samples"):
        BmnConfig(n_samples=0)


@given(st.lists(st.tuples(st.floats(-5, 5), st.booleans()), min_size=1, max_size=20))
def test_balanced_logistic_is_its_formula(items: list[tuple[float, bool]]) -> None:
    logits = torch.tensor([item[0] for item in items], dtype=torch.float64)
    positive = torch.tensor([item[1] for item in items])
    count, n_positive = len(items), sum(item[1] for item in items)
    total = 0.0
    for logit, is_positive in items:
        chance = 1 / (1 + np.exp(-logit))
        if 0 < n_positive < count:
            weight = count / (n_positive if is_positive else count - n_positive)
        else:
            weight = 1.0
        total -= weight * np.log(chance if is_positive else 1 - chance)
    np.testing.assert_allclose(float(balanced_logistic(logits, positive)), total / count)


def test_each_band_of_iou_weighs_the_same() -> None:
    iou = torch.tensor([0.9, 0.5, 0.5, 0.1, 0.0, 0.0, 0.3])
    logits = torch.zeros(7)
    errors = (0.5 - iou) ** 2
    expected = (errors[0] + errors[1:3].mean() + errors[3:].mean()) / 3
    torch.testing.assert_close(balanced_square(logits, iou, LossConfig()), expected)
    torch.testing.assert_close(
        balanced_square(logits[3:], iou[3:], LossConfig()), errors[3:].mean()
    )


def test_what_leaves_the_grid_is_no_loss() -> None:
    valid = torch.from_numpy(valid_proposals(4, 4))
    iou = torch.rand(1, 4, 4)
    targets = BmnTargets(torch.rand(1, 4), torch.rand(1, 4), iou, valid)
    maps = torch.randn(1, 4, 4)
    output = BmnOutput(torch.randn(1, 4), torch.randn(1, 4), maps, maps)
    changed = torch.where(valid, maps, 100.0)
    other = output._replace(classification=changed, regression=changed)
    first = bmn_loss(output, targets, LossConfig())
    torch.testing.assert_close(first, bmn_loss(other, targets, LossConfig()))
    torch.testing.assert_close(
        first.total, first.boundary + first.classification + 10 * first.regression
    )
