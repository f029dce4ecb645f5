"""tsp inspect, tsp compare and tsp merge."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from tspcli.cli.main import cli
from tspcli.errors import StoreError, StoreMismatchError, UsageError
from tspcli.features import StoreMetadata, open_store, write_store
from tspcli.features.compare import compare_stores
from tspcli.features.inspect import summarize, view_video
from tspcli.features.merge import merge_stores
from tspcli.features.metadata import sampling_attributes
from tspcli.features.store import content_checksum
from tspcli.timeline import Sampling

DIM = 64
TSP = Sampling()


def network(seed: int = 0) -> np.ndarray:
    """Weights: what the channels mean."""
    return np.random.default_rng(seed).normal(size=(12, DIM))


def scene(times: np.ndarray, video: int) -> np.ndarray:
    """What is to be seen at a time: 12 slow and quick signals, different for each video."""
    rng = np.random.default_rng(1000 + video)
    pace, phase = rng.uniform(0.2, 1.6, 12), rng.uniform(0, 6, 12)
    return np.sin(times[:, None] * pace + phase) + 0.3 * np.sin(3.1 * times[:, None] * pace)


def features(
    n: int, video: int, *, weights: int = 0, sampling: Sampling = TSP, late_s: float = 0.0
) -> np.ndarray:
    """Rectified, so that all rows are alike in a way, as real clip features are."""
    times = np.array([float(sampling.clip_center_s(i)) for i in range(n)]) + late_s
    return np.maximum(scene(times, video) @ network(weights) + 1.0, 0).astype(np.float32)


def store(
    path: Path,
    videos: dict[str, np.ndarray],
    *,
    sampling: Sampling | None = TSP,
    checksums: bool = False,
    warnings: dict[str, list[str]] | None = None,
    **settings: object,
) -> Path:
    if sampling is None:
        with h5py.File(path, "w") as file:
            for key, rows in videos.items():
                file[key] = rows
        return path

    def entries():
        for key, rows in videos.items():
            attributes = {
                "duration_s": float(sampling.clip_end_s(len(rows) - 1)) + 0.5,
                "source_fps": 25.0,
                "decoder": "pyav",
                "warnings": json.dumps((warnings or {}).get(key, [])),
                **sampling_attributes(sampling),
            }
            if checksums:
                attributes["checksum"] = content_checksum(rows, attributes)
            yield key, rows, attributes

    encoder = {"backbone": "r3d_18", "weights": "w", "weights_sha256": "00", **settings}
    write_store(path, entries(), StoreMetadata.build(sampling=sampling, encoder=encoder))
    return path


VIDEOS = {f"v_{n}": features(60 + n, n) for n in range(4)}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return store(tmp_path / "base.h5", VIDEOS)


def verdict_of(a: Path, b: Path, **options: object):
    with open_store(a) as first, open_store(b) as second:
        return compare_stores(first, second, **options)


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

    def test_a_few_rows_that_start_a_frame_early_stay_the_same(
        self, base: Path, tmp_path: Path
    ) -> None:
        early = {k: r.copy() for k, r in VIDEOS.items()}
        for k, rows in early.items():
            rows[5:8] = features(len(rows), int(k[2:]), late_s=-0.4)[5:8]
        found = verdict_of(base, store(tmp_path / "b.h5", early))
        assert found.verdict == "same"
        assert all(0 < video.differing <= 3 for video in found.videos)
        assert all(5 <= video.lowest[0] < 8 for video in found.videos)

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
        assert found.verdict == "other settings"
        assert any("sampling.stride" in d for d in found.differences)
        # Files that tell nothing give it away by their numbers of rows.
        a = store(tmp_path / "x.h5", VIDEOS, sampling=None)
        b = store(tmp_path / "y.h5", more, sampling=None)
        assert verdict_of(a, b).verdict == "other settings"

    def test_other_preprocessing(self, base: Path, tmp_path: Path) -> None:
        rng = np.random.default_rng(5)
        changed = {k: r + rng.normal(0, 0.6, r.shape).astype("f4") for k, r in VIDEOS.items()}
        found = verdict_of(base, store(tmp_path / "b.h5", changed, preprocessing="crop"))
        assert found.verdict == "other settings"

    def test_rows_missing_at_the_end(self, base: Path, tmp_path: Path) -> None:
        found = verdict_of(base, store(tmp_path / "b.h5", {k: r[:-1] for k, r in VIDEOS.items()}))
        assert found.verdict == "same"  # the end depends on who counts the frames
        found = verdict_of(base, store(tmp_path / "c.h5", {k: r[:50] for k, r in VIDEOS.items()}))
        assert found.verdict == "other settings" and "rows" in found.videos[0].reason

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
        with pytest.raises(StoreError, match="no video in common"):
            verdict_of(base, store(tmp_path / "c.h5", {"z": features(5, 1)}))

    def test_the_commonest_verdict_wins(self, base: Path, tmp_path: Path) -> None:
        mixed = {k: r if k != "v_3" else features(len(r), 3, weights=1) for k, r in VIDEOS.items()}
        found = verdict_of(base, store(tmp_path / "b.h5", mixed))
        assert found.verdict == "same" and not found.all_same
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


class TestMerge:
    def test_joins(self, tmp_path: Path) -> None:
        keys = list(VIDEOS)
        a = store(tmp_path / "a.h5", {k: VIDEOS[k] for k in keys[:2]}, checksums=True)
        b = store(tmp_path / "b.h5", {k: VIDEOS[k] for k in keys[2:]}, checksums=True)
        report = merge_stores([b, a], tmp_path / "all.h5")
        assert report.n_videos == [2, 2] and report.dim == DIM
        with open_store(tmp_path / "all.h5") as merged, open_store(a) as first:
            assert list(merged) == keys
            assert merged.metadata == first.metadata
            for key in keys:
                np.testing.assert_array_equal(merged[key].rows, VIDEOS[key])
                assert merged[key].verify() is True
                assert merged[key].sampling == TSP

    def test_names_every_setting_that_differs(self, base: Path, tmp_path: Path) -> None:
        other = store(
            tmp_path / "b.h5",
            {"v_9": features(5, 1)},
            sampling=Sampling(stride=1),
            weights_sha256="11",
        )
        with pytest.raises(StoreMismatchError) as caught:
            merge_stores([base, other], tmp_path / "all.h5")
        assert "sampling.stride: 1, not 16" in str(caught.value)
        assert "weights_sha256: 11, not 00" in str(caught.value)
        assert not (tmp_path / "all.h5").exists()

    def test_duplicates_are_named(self, base: Path, tmp_path: Path) -> None:
        other = store(tmp_path / "b.h5", {"v_2": features(5, 1)})
        with pytest.raises(StoreError, match=r"'v_2' is in .*base\.h5 and in .*b\.h5"):
            merge_stores([base, other], tmp_path / "all.h5")

    def test_does_not_mix_known_and_unknown(self, base: Path, tmp_path: Path) -> None:
        foreign = store(tmp_path / "f.h5", {"v_8": features(5, 1)}, sampling=None)
        with pytest.raises(StoreMismatchError, match="does not say how"):
            merge_stores([base, foreign], tmp_path / "all.h5")
        more = store(tmp_path / "g.h5", {"v_9": features(5, 1)}, sampling=None)
        merge_stores([foreign, more], tmp_path / "all.h5")
        with open_store(tmp_path / "all.h5") as merged:
            assert list(merged) == ["v_8", "v_9"]
        wide = store(tmp_path / "w.h5", {"v_7": np.ones((3, 8), "f4")}, sampling=None)
        with pytest.raises(StoreMismatchError, match="width 8"):
            merge_stores([foreign, wide], tmp_path / "other.h5")

    def test_an_existing_store_is_kept(self, base: Path, tmp_path: Path) -> None:
        other = store(tmp_path / "b.h5", {"v_9": features(5, 1)})
        with pytest.raises(StoreError, match="--overwrite"):
            merge_stores([base, other], base)
        merge_stores([base, other], base, overwrite=True)  # into one of its own inputs
        with open_store(base) as merged:
            assert len(merged) == 5

    def test_failures_stay_known(self, tmp_path: Path) -> None:
        paths = []
        for name, bad in (("a", "v_x"), ("b", "v_y")):
            paths.append(store(tmp_path / f"{name}.h5", {f"v_{name}": features(5, 1)}))
            report = {
                "videos": [
                    {"key": f"v_{name}", "status": "done"},
                    {"key": bad, "status": "failed", "reason": "damaged", "detail": "d"},
                ]
            }
            (tmp_path / f"{name}.h5.report.json").write_text(json.dumps(report))
        merge_stores(paths, tmp_path / "all.h5")
        with open_store(tmp_path / "all.h5") as merged:
            failures = summarize(merged).failures
        assert [failure["key"] for failure in failures] == ["v_x", "v_y"]

    def test_command(self, base: Path, tmp_path: Path) -> None:
        out = tmp_path / "all.h5"
        result = CliRunner().invoke(cli, ["merge", str(base), "-o", str(out), "--json"])
        assert json.loads(result.stdout)["n_videos"] == [4] and out.is_file()


class TestInspect:
    def test_summary(self, tmp_path: Path) -> None:
        path = store(tmp_path / "s.h5", VIDEOS, warnings={"v_1": ["padded"]}, precision="bf16")
        with open_store(path) as opened:
            summary = summarize(opened)
        assert summary.n_rows == sum(map(len, VIDEOS.values())) and summary.dims == [DIM]
        assert summary.encoder == "r3d_18" and summary.weights == "w"
        assert summary.settings["precision"] == "bf16"
        assert summary.settings["sampling.stride"] == 16
        by_key = {video.key: video for video in summary.videos}
        assert by_key["v_1"].warnings == ["padded"]
        assert by_key["v_0"].covered_s == pytest.approx(60 * 16 / 15)
        assert summary.seconds == pytest.approx(sum(v.duration_s for v in summary.videos))

    def test_check_finds_what_changed(self, tmp_path: Path) -> None:
        path = store(tmp_path / "s.h5", VIDEOS, checksums=True)
        with h5py.File(path, "a") as file:
            file["v_1"][0, 0] = np.nan
        with open_store(path) as opened:
            found = {v.key: (v.intact, v.not_finite) for v in summarize(opened, check=True).videos}
        assert found == {"v_0": (True, 0), "v_1": (False, 1), "v_2": (True, 0), "v_3": (True, 0)}
        result = CliRunner().invoke(cli, ["inspect", str(path), "--check"], standalone_mode=False)
        assert result.return_value == 1 and "damaged" in result.output

    def test_video(self, tmp_path: Path) -> None:
        rows = features(20, 0)
        rows[15] = rows[3] * 2
        path = store(tmp_path / "s.h5", {"v_0": rows})
        with open_store(path) as opened:
            views = view_video(opened, "0", n_neighbours=2)
        assert views[15].neighbours[0][0] == 3 and views[3].neighbours[0][0] == 15
        assert views[3].neighbours[0][1] == pytest.approx(1)
        assert views[15].norm == pytest.approx(2 * views[3].norm)
        assert views[2].center_s == pytest.approx((2 * 16 + 8) / 15)
        assert views[2].start_s == pytest.approx(32 / 15) and views[2].end_s == pytest.approx(3.2)

    def test_overlapping_clips_are_no_neighbours(self, tmp_path: Path) -> None:
        dense = Sampling(stride=1, frame_rate=Fraction(15))
        path = store(tmp_path / "s.h5", {"v_0": features(80, 0, sampling=dense)}, sampling=dense)
        with open_store(path) as opened:
            for view in view_video(opened, "v_0"):
                assert len(view.neighbours) == 3
                assert all(abs(other - view.row) >= 16 for other, _ in view.neighbours)

    def test_one_row(self, tmp_path: Path) -> None:
        path = store(tmp_path / "s.h5", {"v_0": features(1, 0)})
        with open_store(path) as opened:
            (view,) = view_video(opened, "v_0")
        assert view.neighbours == []

    def test_unknown_video(self, base: Path) -> None:
        with open_store(base) as opened, pytest.raises(UsageError, match="no video 'v_7'") as error:
            view_video(opened, "v_7")
        assert "v_" in str(error.value.remedy)

    def test_released_files(self, tmp_path: Path) -> None:
        path = store(tmp_path / "r.h5", VIDEOS, sampling=None)
        run = CliRunner().invoke
        result = run(cli, ["inspect", str(path)])
        assert result.exit_code == 0 and "unknown" in result.output
        data = json.loads(run(cli, ["inspect", str(path), "v_0", "--json"]).stdout)
        assert data["rows"][0]["center_s"] is None
        told = ["--frame-rate", "15", "--stride", "16", "--clip-length", "16", "--json"]
        data = json.loads(run(cli, ["inspect", str(path), "v_0", *told]).stdout)
        assert data["rows"][1]["center_s"] == pytest.approx(1.6)

    def test_command(self, base: Path) -> None:
        report = {
            "videos": [
                {"key": "v_bad", "status": "failed", "reason": "no-frames", "detail": "[red]x"}
            ]
        }
        base.with_name("base.h5.report.json").write_text(json.dumps(report))
        run = CliRunner().invoke
        text = run(cli, ["inspect", str(base)]).output
        for part in ("v_0", "r3d_18", "sampling.stride", "v_bad", "no-frames", "[red]x"):
            assert part in text
        data = json.loads(run(cli, ["inspect", str(base), "--json"]).stdout)
        assert data["n_videos"] == 4 and data["failures"][0]["key"] == "v_bad"
        text = run(cli, ["inspect", str(base), "v_0", "--limit", "5"]).output
        assert "1.600" in text and "and 55 more" in text
