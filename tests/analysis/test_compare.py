"""tsp compare."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.builders.refusals import refused
from tests.builders.stores import DIM, TSP, VIDEOS, features, store
from tspcli.analysis.compare import compare_stores
from tspcli.annotations import AnnotatedVideo, Segment
from tspcli.cli.main import cli
from tspcli.errors import StoreError, UsageError
from tspcli.sampling import Sampling
from tspcli.store import open_store


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return store(tmp_path / "base.h5", VIDEOS)


def verdict_of(a: Path, b: Path, **options: object):
    with open_store(a) as first, open_store(b) as second:
        return compare_stores(first, second, **options)


def compare_command(a: Path, b: Path, *options: str, code: int = 0) -> str:
    arguments = ["compare", str(a), str(b), *options]
    result = CliRunner().invoke(cli, arguments, standalone_mode=False, catch_exceptions=False)
    assert (result.return_value or 0) == code
    return result.stdout


class TestCompare:
    def test_same(self, base: Path, tmp_path: Path) -> None:
        rng = np.random.default_rng(3)
        noisy = {k: r + rng.normal(0, 0.01, r.shape).astype("f4") for k, r in VIDEOS.items()}
        found = verdict_of(base, store(tmp_path / "b.h5", noisy))
        assert found.verdict == "same" and found.all_same
        assert found.counts == {"same": 4}
        for video in found.videos:
            assert video.shift_rows == 0 and video.shift_s == 0.0
            assert 0.99 < video.cosine < 1
            assert len(video.cosines) == video.n_rows[0]

    @pytest.mark.parametrize("known", [True, False])
    def test_a_single_wrong_row_is_found_and_named(
        self, base: Path, tmp_path: Path, known: bool
    ) -> None:
        wrong = {k: r.copy() for k, r in VIDEOS.items()}
        wrong["v_2"][17] = VIDEOS["v_2"][40]
        sampling = TSP if known else None
        a = store(tmp_path / "a.h5", VIDEOS, sampling=sampling)
        b = store(tmp_path / "b.h5", wrong, sampling=sampling)
        found = verdict_of(a, b)
        assert found.counts == {"same": 3, "rows differ": 1}
        assert found.verdict == "rows differ" and not found.all_same
        video = found.videos[2]
        assert video.verdict == "rows differ" and video.differing == [17]
        assert video.lowest[0] == 17 and video.cosine > 0.9999
        if known:
            assert video.differing_s == [pytest.approx((17 * 16 + 8) / 15)]
            assert video.reason == "row 17 (18.667 s), of 62"
        else:
            assert video.differing_s is None and video.reason == "row 17, of 62"
        text = compare_command(a, b, "--expect-same", code=1)
        assert "v_2" in text and video.reason in text

    def test_one_wrong_row_beside_reduced_precision(self, base: Path, tmp_path: Path) -> None:
        rng = np.random.default_rng(3)
        noisy = {k: r + rng.normal(0, 0.03, r.shape).astype("f4") for k, r in VIDEOS.items()}
        assert verdict_of(base, store(tmp_path / "b.h5", noisy)).all_same
        noisy["v_1"][0] = noisy["v_1"][30]
        found = verdict_of(base, store(tmp_path / "c.h5", noisy))
        assert [video.differing for video in found.videos] == [[], [0], [], []]

    def test_a_scaled_row_and_scaled_rows(self, base: Path, tmp_path: Path) -> None:
        rows = VIDEOS["v_1"].copy()
        rows[5] *= 2
        found = verdict_of(base, store(tmp_path / "b.h5", {"v_1": rows}))
        assert found.videos[0].differing == [5] and found.videos[0].lowest[1] > 0.999
        found = verdict_of(base, store(tmp_path / "c.h5", {"v_1": VIDEOS["v_1"] * 2}))
        assert found.verdict == "other scale" and "2 times as long" in found.videos[0].reason

    def test_wrong_rows_come_before_the_limit(self, base: Path, tmp_path: Path) -> None:
        wrong = {k: r.copy() for k, r in VIDEOS.items()}
        wrong["v_3"][1] = 0
        other = store(tmp_path / "b.h5", wrong)
        assert "row 1 (1.600 s), of 63" in compare_command(base, other, "--limit", "1")

    def test_rows_that_are_not_finite(self, base: Path, tmp_path: Path) -> None:
        broken = {k: r.copy() for k, r in VIDEOS.items()}
        broken["v_1"][9, 3] = np.nan
        broken["v_2"][:] = np.inf
        other = store(tmp_path / "b.h5", broken)
        found = verdict_of(base, other)
        assert found.verdict == "not finite" and found.counts == {"same": 2, "not finite": 2}
        assert found.videos[1].not_finite == ([], [9])
        assert found.videos[1].reason == "row 9 (10.133 s) of the second is not finite"
        assert found.videos[1].cosine > 0.9999
        text = compare_command(base, other, "--expect-same", code=1)
        assert "nan" not in text and "other weights" not in text
        assert not verdict_of(other, other).all_same
        # What is known of the other rows is not lost.
        moved = {k: features(len(r), int(k[2:]), weights=1) for k, r in VIDEOS.items()}
        moved["v_1"][9, 3] = np.nan
        video = verdict_of(base, store(tmp_path / "c.h5", moved)).videos[1]
        assert video.verdict == "other weights" and "is not finite" in video.reason

    @pytest.mark.parametrize("shift", [1, -1, 3, -4])
    def test_shifted(self, base: Path, tmp_path: Path, shift: int) -> None:
        moved = {
            k: features(len(r), int(k[2:]), late_s=-shift * 16 / 15) for k, r in VIDEOS.items()
        }
        found = verdict_of(base, store(tmp_path / "b.h5", moved))
        assert found.verdict == "shifted"
        for video in found.videos:
            assert video.shift_rows == shift
            assert video.shift_s == pytest.approx(shift * 16 / 15)
            assert video.shifted_cosine > 0.999 > video.cosine

    def test_seconds_of_a_shift_need_a_sampling(self, base: Path, tmp_path: Path) -> None:
        moved = {k: features(len(r), int(k[2:]), late_s=16 / 15) for k, r in VIDEOS.items()}
        a = store(tmp_path / "a.h5", VIDEOS, sampling=None)
        b = store(tmp_path / "b.h5", moved, sampling=None)
        found = verdict_of(a, b)
        assert found.verdict == "shifted"
        assert found.videos[0].shift_s is None and found.videos[0].shift_rows == -1

    def test_other_weights(self, base: Path, tmp_path: Path) -> None:
        other = {k: features(len(r), int(k[2:]), weights=1) for k, r in VIDEOS.items()}
        found = verdict_of(base, store(tmp_path / "b.h5", other, weights_sha256="11"))
        assert found.verdict == "other weights"
        assert found.differences == ["weights_sha256: 00, not 11"]
        # Raw cosines alone would not have told it.
        assert min(video.cosine for video in found.videos) > 0.3
        assert max(video.agreement for video in found.videos) < 0.3

    def test_other_width(self, base: Path, tmp_path: Path) -> None:
        found = verdict_of(base, store(tmp_path / "b.h5", {"v_0": np.ones((60, 8), "f4")}))
        assert found.verdict == "other weights"
        assert "64 and 8" in found.videos[0].reason

    def test_other_stride(self, base: Path, tmp_path: Path) -> None:
        dense = Sampling(stride=4)
        more = {k: features(len(r) * 4, int(k[2:]), sampling=dense) for k, r in VIDEOS.items()}
        found = verdict_of(base, store(tmp_path / "b.h5", more, sampling=dense))
        assert found.verdict == "other times"
        assert any("sampling.stride" in d for d in found.differences)
        # Files that tell nothing give it away by their numbers of rows.
        a = store(tmp_path / "x.h5", VIDEOS, sampling=None)
        b = store(tmp_path / "y.h5", more, sampling=None)
        assert verdict_of(a, b).verdict == "other times"

    def test_other_preprocessing(self, base: Path, tmp_path: Path) -> None:
        rng = np.random.default_rng(5)
        changed = {k: r + rng.normal(0, 0.6, r.shape).astype("f4") for k, r in VIDEOS.items()}
        for name, settings, verdict in (
            ("b.h5", {"preprocessing": "crop"}, "other preprocessing"),
            ("c.h5", {}, "other preprocessing"),
            ("d.h5", {"weights_sha256": "11"}, "other weights"),
            ("e.h5", {"sampling": Sampling(grid_rate=Fraction(60))}, "other times"),
        ):
            other = store(tmp_path / name, changed, **settings)  # type: ignore[arg-type]
            assert verdict_of(base, other).verdict == verdict

    def test_rows_missing_at_the_end(self, base: Path, tmp_path: Path) -> None:
        found = verdict_of(base, store(tmp_path / "b.h5", {k: r[:-1] for k, r in VIDEOS.items()}))
        assert found.verdict == "same"  # the end depends on who counts the frames
        found = verdict_of(base, store(tmp_path / "c.h5", {k: r[:50] for k, r in VIDEOS.items()}))
        assert found.verdict == "other times" and "rows" in found.videos[0].reason

    @pytest.mark.parametrize("n", [1, 2, 3])
    def test_short_videos(self, tmp_path: Path, n: int) -> None:
        a = store(tmp_path / "a.h5", {"v_0": features(n, 0)})
        assert verdict_of(a, a).verdict == "same"
        b = store(tmp_path / "b.h5", {"v_0": features(n, 0, weights=1)})
        assert verdict_of(a, b).verdict == "other weights"

    @pytest.mark.parametrize("shift", [0, 2])
    def test_encoders_whose_rows_are_all_alike(self, tmp_path: Path, shift: int) -> None:
        """A large common part makes every cosine nearly 1; the verdict does not depend on it."""
        common = 60 + np.random.default_rng(1).uniform(0, 9, DIM)

        def alike(**options: object) -> dict[str, np.ndarray]:
            return {f"v_{n}": (features(50, n, **options) + common).astype("f4") for n in range(3)}

        a = store(tmp_path / "a.h5", alike())
        b = store(tmp_path / "b.h5", alike(late_s=-shift * 16 / 15))
        found = verdict_of(a, b)
        assert min(video.cosine for video in found.videos) > 0.99
        assert found.verdict == ("shifted" if shift else "same")
        assert all(video.shift_rows == shift for video in found.videos)
        c = store(tmp_path / "c.h5", alike(weights=1))
        assert verdict_of(a, c).verdict == "other weights"

    def test_a_still_video_is_the_same_up_to_rounding(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(2)
        still = np.repeat(features(1, 0), 40, axis=0)
        noisy = [still * (1 + rng.normal(0, 2e-3, still.shape)).astype("f4") for _ in range(2)]
        a, b = (
            store(tmp_path / f"{n}.h5", {"v": rows}) for n, rows in zip("ab", noisy, strict=True)
        )
        (video,) = verdict_of(a, b).videos
        assert video.verdict == "same" and video.shift_rows == 0

    def test_rows_of_zeros(self, tmp_path: Path) -> None:
        a = store(tmp_path / "a.h5", {"v_0": np.zeros((9, DIM), "f4")})
        assert verdict_of(a, a).verdict == "same"

    def test_keys_with_and_without_prefix(self, base: Path, tmp_path: Path) -> None:
        bare = store(tmp_path / "b.h5", {k[2:]: r for k, r in list(VIDEOS.items())[:2]})
        found = verdict_of(base, bare)
        assert found.verdict == "same" and len(found.videos) == 2
        assert found.only_a == ["v_2", "v_3"] and found.only_b == []
        with refused(StoreError, path=tmp_path / "c.h5"):
            verdict_of(base, store(tmp_path / "c.h5", {"z": features(5, 1)}))

    def test_videos_asked_for(self, base: Path, tmp_path: Path) -> None:
        other = store(tmp_path / "b.h5", {k: VIDEOS[k] for k in ("v_0", "v_1")})
        assert [v.key for v in verdict_of(base, other, videos=["1", "v_0.mp4"]).videos] == [
            "v_0",
            "v_1",
        ]
        with refused(UsageError, value="v_7"):
            verdict_of(base, other, videos=["v_0", "v_7"])
        with refused(StoreError, path=other, value="v_2"):
            verdict_of(base, other, videos=["v_0", "v_2"])

    def test_the_commonest_of_the_other_verdicts_wins(self, base: Path, tmp_path: Path) -> None:
        mixed = {k: r if k != "v_3" else features(len(r), 3, weights=1) for k, r in VIDEOS.items()}
        found = verdict_of(base, store(tmp_path / "b.h5", mixed))
        assert found.verdict == "other weights" and not found.all_same
        assert found.counts == {"same": 3, "other weights": 1}
        assert verdict_of(base, tmp_path / "b.h5", videos=["3"]).verdict == "other weights"

    def test_command(self, base: Path, tmp_path: Path) -> None:
        other = store(
            tmp_path / "b.h5", {k: features(len(r), 9, weights=1) for k, r in VIDEOS.items()}
        )
        run = CliRunner().invoke
        result = run(cli, ["compare", str(base), str(other)])
        assert result.exit_code == 0 and "other weights" in result.output
        failing = run(
            cli, ["compare", str(base), str(other), "--expect-same"], standalone_mode=False
        )
        assert failing.return_value == 1
        passing = run(
            cli, ["compare", str(base), str(base), "--expect-same"], standalone_mode=False
        )
        assert passing.return_value == 0
        data = json.loads(run(cli, ["compare", str(base), str(other), "--json"]).stdout)
        assert data["verdict"] == "other weights" and len(data["videos"]) == 4


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_nothing_is_cut_in_a_narrow_terminal(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    other = {k: features(len(r), int(k[2:]), weights=1) for k, r in VIDEOS.items()}
    monkeypatch.setenv("COLUMNS", str(columns))
    text = compare_command(base, store(tmp_path / "b.h5", other))
    table = text.split("\n\n")[0]
    assert max(map(len, table.splitlines())) <= columns and "…" not in table
    assert all(key in table for key in VIDEOS)
    assert "thechannelsmeanotherthings" in "".join(table.split())


@pytest.mark.parametrize("prefix", ["", "v_"])
def test_separation_of_each_store(tmp_path: Path, prefix: str) -> None:
    rng = np.random.default_rng(4)
    noise = {f"v_{n}": rng.normal(size=(40, DIM)).astype("f4") for n in range(3)}
    planted = {key: rows.copy() for key, rows in noise.items()}
    for rows in planted.values():
        rows[10:20] += 5
    a, b = store(tmp_path / "a.h5", noise), store(tmp_path / "b.h5", planted)
    seconds = [float(TSP.clip_center_s(row)) for row in (10, 19)]
    action = AnnotatedVideo((Segment(*seconds, "run"),), 45.0)
    annotated = {f"{prefix}0": action, f"{prefix}2": action, "other": action}
    found = verdict_of(a, b, annotated=annotated)
    assert found.n_separated == 2
    assert abs(found.separations[0]) < 0.1 < 0.4 < found.separations[1]
    table = tmp_path / "a.csv"
    table.write_text(
        "video,start,end,label\n" + "".join(f"{n},{seconds[0]},{seconds[1]},run\n" for n in "02")
    )
    text = compare_command(a, b, "-a", str(table))
    assert f"{found.separations[1]:+.3f} in the second" in text
    assert verdict_of(a, b).separations is None
    untold = store(tmp_path / "c.h5", noise, sampling=None)
    with pytest.raises(StoreError):
        verdict_of(untold, untold, annotated=annotated)


def test_one_name_without_prefix_hides_no_other(tmp_path: Path) -> None:
    videos = {f"v_{number}": features(30, number) for number in range(4)}
    clean = store(tmp_path / "clean.h5", videos)
    mixed = store(tmp_path / "mixed.h5", {**videos, "extra": features(30, 9)})
    with open_store(clean) as a, open_store(mixed) as b:
        comparison = compare_stores(a, b)
        assert comparison.verdict == "same" and len(comparison.videos) == 4
        assert comparison.only_a == [] and comparison.only_b == ["extra"]
        assert compare_stores(b, a).only_a == ["extra"]


def test_equal_names_meet_before_others(tmp_path: Path) -> None:
    one = store(tmp_path / "1.h5", {"x": features(30, 1), "v_x": features(30, 2)})
    with open_store(one) as a, open_store(one) as b:
        comparison = compare_stores(a, b)
    assert comparison.verdict == "same" and len(comparison.videos) == 2
