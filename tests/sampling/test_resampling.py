"""Each way to resize against the program that it names, written out plainly or run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from tspcli.errors import UsageError
from tspcli.sampling import resampling

ROWS = st.integers(1, 400)
LENGTHS = st.integers(1, 260)


def random_rows(n: int, dim: int = 3) -> np.ndarray:
    return np.random.default_rng(n).normal(size=(n, dim)).astype(np.float32)


@given(n=ROWS, length=LENGTHS)
def test_linear_is_torch_interpolate(n: int, length: int) -> None:
    rows = random_rows(n)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(rows.T.astype(np.float64))[None],
        size=length,
        mode="linear",
        align_corners=False,
    )[0].T.numpy()
    np.testing.assert_allclose(resampling.linear(n, length).apply(rows), expected, atol=1e-5)


@given(n=ROWS, length=LENGTHS)
def test_roi_align_is_torchvisions(n: int, length: int) -> None:
    rows = random_rows(n)
    image = torch.from_numpy(rows.T.astype(np.float64))[None, :, :, None]
    box = torch.tensor([[0, 0, 0, 1, n]], dtype=torch.float64)
    expected = torchvision.ops.roi_align(image, box, output_size=(length, 1), aligned=True)
    np.testing.assert_allclose(
        resampling.roi_align(n, length).apply(rows), expected[0, :, :, 0].T.numpy(), atol=1e-5
    )


@given(n=ROWS, length=LENGTHS)
def test_bmn_pool_step_by_step(n: int, length: int) -> None:
    rows = random_rows(n).astype(np.float64)
    expected = np.zeros((length, 3))
    for j in range(length):
        if n == 1:
            expected[j] = rows[0]
            continue
        low = max(0.5 + 1e-4, j / length * n)
        high = min(n - 0.5 - 1e-4, (j + 1) / length * n)
        if high < 0.5 or low > n - 0.5:
            continue
        points = [low, low + (high - low) / 2, high]
        expected[j] = np.mean(
            [[np.interp(p, np.arange(n) + 0.5, rows[:, c]) for c in range(3)] for p in points], 0
        )
    got = resampling.bmn_pool(n, length).apply(rows.astype(np.float32))
    np.testing.assert_allclose(got, expected, atol=1e-5)


@given(
    n=ROWS,
    step_s=st.floats(0.05, 3),
    first_s=st.floats(0.05, 2),
    times=st.lists(st.floats(-5, 500), min_size=1, max_size=30),
)
def test_centers_is_interpolation_in_time(
    n: int, step_s: float, first_s: float, times: list[float]
) -> None:
    known = first_s + step_s * np.arange(n)
    taps = resampling.centers(n, first_s, step_s, times)
    np.testing.assert_allclose(taps.times_s(known), np.clip(times, known[0], known[-1]), atol=1e-6)


@given(
    n=st.integers(1, 60),
    step_s=st.floats(0.1, 3),
    first_s=st.floats(0.05, 2),
    cell_s=st.floats(0.1, 12),
    n_cells=st.integers(1, 20),
)
def test_cell_means_are_integrals(
    n: int, step_s: float, first_s: float, cell_s: float, n_cells: int
) -> None:
    rows = random_rows(n)
    taps = resampling.cell_means(n, first_s, step_s, cell_s, n_cells)
    np.testing.assert_allclose(taps.weight.sum(axis=1), 1, atol=1e-9)
    assert (taps.weight > -1e-9).all()
    # Integrated exactly: a broken line's mean between its corners is that of their ends.
    known = first_s + step_s * np.arange(n)
    for j in range(n_cells):
        ends = [j * cell_s, (j + 1) * cell_s]
        corners = np.unique([*ends, *known[(known > ends[0]) & (known < ends[1])]])
        heights = np.interp(corners, known, rows[:, 0].astype(np.float64))
        area = np.sum((heights[1:] + heights[:-1]) / 2 * np.diff(corners))
        assert taps.apply(rows)[j, 0] == pytest.approx(area / cell_s, abs=1e-4)


@given(n=st.integers(2, 900))
def test_nearest_by_ends_is_pdvcs(n: int) -> None:
    """Positions i (N - 1) / 99, the nearer row, of two equally near ones the lower."""
    index = resampling.nearest_by_ends(n, 100).index[:, 0]
    for i, j in enumerate(index):
        distance = np.abs(np.arange(n) - i * (n - 1) / 99)
        assert distance[j] == pytest.approx(distance.min(), abs=1e-9)
    assert index[0] == 0 and index[-1] == n - 1


@pytest.mark.parametrize("method", sorted(resampling.BY_LENGTH))
@pytest.mark.parametrize("length", [1, 100])
def test_one_row_is_repeated(method: str, length: int) -> None:
    rows = random_rows(1)
    out = resampling.BY_LENGTH[method](1, length).apply(rows)
    np.testing.assert_allclose(out, np.repeat(rows, length, axis=0), atol=1e-6)


def test_an_infinite_row_stays_where_it_is() -> None:
    rows = random_rows(8)
    rows[3] = np.inf
    out = resampling.linear(8, 8).apply(rows)
    assert np.isinf(out[3]).all() and np.isfinite(np.delete(out, 3, axis=0)).all()


def test_nothing_cannot_be_resized() -> None:
    with pytest.raises(UsageError):
        resampling.linear(0, 10)
    with pytest.raises(UsageError):
        resampling.linear(10, 0)
