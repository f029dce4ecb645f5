"""Finding moments like an example."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.refusals import refused
from tests.builders.stores import features, store
from tspcli.analysis.moments import Moment, MomentIndex, Span, rows_of_span
from tspcli.errors import StoreMismatchError, UsageError
from tspcli.sampling import Sampling
from tspcli.store import open_store

HALF = Sampling(stride=8)
STEP_S = float(HALF.stride_s)
VIDEOS = {f"v_{n}": features(40 + 7 * n, n, sampling=HALF) for n in range(4)}


def planted(path: Path) -> Path:
    """A store in which rows 10 to 15 of v_0 come again in v_2 from row 30 on."""
    videos = {key: rows.copy() for key, rows in VIDEOS.items()}
    videos["v_2"][30:36] = videos["v_0"][10:16]
    return store(path, videos, sampling=HALF)


def span(first: int, last: int, key: str = "v_0") -> Span:
    """The time of rows ``first`` up to ``last``."""
    first_s = float(HALF.clip_center_s(0)) - STEP_S / 2
    return Span(key, first_s + first * STEP_S, first_s + last * STEP_S)


def test_what_comes_again_is_found_first_where_it_is(tmp_path: Path):
    with open_store(planted(tmp_path / "a.h5")) as opened:
        best, *others = MomentIndex([opened]).search(span(10, 16), top=5)
    expected = span(30, 36, "v_2")
    assert (best.store, best.key) == (0, "v_2")
    assert (best.start_s, best.end_s) == pytest.approx(expected[1:])
    assert all(other.score < best.score for other in others)


def test_scores_are_mean_cosines_without_the_mean_row(tmp_path: Path):
    with open_store(planted(tmp_path / "a.h5")) as opened:
        index = MomentIndex([opened])
        found = index.search(span(10, 16), top=100)
        rows = {key: opened[key].rows.astype(np.float64) for key in opened}
    mean = np.concatenate(list(rows.values())).mean(axis=0)
    units = {k: (r - mean) / np.linalg.norm(r - mean, axis=1)[:, None] for k, r in rows.items()}
    example = units["v_0"][10:16].mean(axis=0)
    example /= np.linalg.norm(example)
    first_s = float(HALF.clip_center_s(0)) - STEP_S / 2
    for moment in found:
        row = round((moment.start_s - first_s) / STEP_S)
        assert moment.score == pytest.approx(
            (units[moment.key][row : row + 6] @ example).mean(), abs=1e-5
        )


@given(first=st.integers(0, 36), length=st.integers(1, 4), gap=st.sampled_from([0.0, 1.0, 3.0]))
def test_moments_keep_apart_from_each_other_and_from_the_example(
    shared_index: MomentIndex, first: int, length: int, gap: float
):
    example = span(first, first + length)
    found = shared_index.search(example, top=15, min_gap_s=gap)
    assert 8 <= len(found) <= 15
    assert [m.score for m in found] == sorted((m.score for m in found), reverse=True)
    spans = [(m.key, m.start_s, m.end_s) for m in found] + [tuple(example)]
    for i, (key, start_s, end_s) in enumerate(spans):
        assert end_s - start_s == pytest.approx(length * STEP_S, abs=1e-6)
        for other, other_start_s, other_end_s in spans[:i]:
            if key == other:
                apart_s = max(start_s - other_end_s, other_start_s - end_s)
                assert apart_s >= gap - 1e-6


@pytest.fixture(scope="module")
def shared_index(tmp_path_factory: pytest.TempPathFactory):
    with open_store(planted(tmp_path_factory.mktemp("moments") / "a.h5")) as opened:
        yield MomentIndex([opened])


def test_a_bounded_memory_changes_nothing_but_the_time(tmp_path: Path):
    with open_store(planted(tmp_path / "a.h5")) as opened:
        complete = MomentIndex([opened])
        bounded = MomentIndex([opened], memory_bytes=100 * 64 * 4)
        assert complete.n_resident == complete.n_rows == sum(map(len, VIDEOS.values()))
        assert 0 < bounded.n_resident <= 100
        for one, other in zip(complete.search(span(3, 6)), bounded.search(span(3, 6)), strict=True):
            assert one[:4] == other[:4]
            assert one.score == pytest.approx(other.score, abs=1e-6)


def test_another_store_may_be_sampled_otherwise(tmp_path: Path):
    """The moments found there are as long as the example in seconds."""
    slow = Sampling(stride=16)
    other = {"w": VIDEOS["v_0"][::2]}
    first = planted(tmp_path / "a.h5")
    second = store(tmp_path / "b.h5", other, sampling=slow)
    with open_store(first) as a, open_store(second) as b:
        (best,) = MomentIndex([a, b]).search(span(10, 16), among=[1], top=1)
    assert best.store == 1
    assert best.end_s - best.start_s == pytest.approx(3 * float(slow.stride_s))
    assert best.start_s == pytest.approx(span(10, 16).start_s, abs=STEP_S)


def test_rows_that_are_not_finite_are_never_found_first(tmp_path: Path):
    videos = {key: rows.copy() for key, rows in VIDEOS.items()}
    videos["v_1"][5] = np.nan
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for key, rows in videos.items():
            file[key] = rows
    with open_store(tmp_path / "a.h5", sampling=HALF) as opened:
        found = MomentIndex([opened]).search(span(10, 11), top=500)
    assert all(np.isfinite(m.score) for m in found)


def test_stores_of_other_encoders_are_refused(tmp_path: Path):
    one = store(tmp_path / "a.h5", VIDEOS, sampling=HALF)
    other = store(tmp_path / "b.h5", VIDEOS, sampling=HALF, weights_sha256="11")
    narrow = store(tmp_path / "c.h5", {"x": VIDEOS["v_0"][:, :8]}, sampling=None)
    with open_store(one) as a, open_store(other) as b, open_store(narrow, sampling=HALF) as c:
        for second in (b, c):
            with refused(StoreMismatchError, path=second.path):
                MomentIndex([a, second])


@pytest.mark.parametrize("times", [(2.0, 2.0), (3.0, 1.0), (1000.0, 1001.0)])
def test_examples_without_rows_are_refused(shared_index: MomentIndex, times: tuple[float, float]):
    with refused(UsageError, value=times):
        shared_index.search(Span("v_0", *times))


def test_a_stretch_shorter_than_a_row_is_the_nearest_row(tmp_path: Path):
    with open_store(planted(tmp_path / "a.h5")) as opened:
        at_s = float(HALF.clip_center_s(7)) + 0.1 * STEP_S
        assert rows_of_span(opened["v_0"], Span("v_0", at_s, at_s + 0.01)) == (7, 8)


def test_videos_shorter_than_the_example_are_left_out(tmp_path: Path):
    with open_store(store(tmp_path / "a.h5", {"v_0": VIDEOS["v_0"], "b": VIDEOS["v_1"][:3]},
                          sampling=HALF)) as opened:  # fmt: skip
        found = MomentIndex([opened]).search(span(10, 16), top=50)
    assert {m.key for m in found} == {"v_0"}
    assert isinstance(found[0], Moment)
