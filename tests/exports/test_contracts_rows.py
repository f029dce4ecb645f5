"""Readers of a fixed number of rows per second or frame, rebuilt: the right row at each second."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.builders.refusals import refused
from tests.exports.conftest import (
    ANET,
    DIM,
    THUMOS,
    TIME,
    VIDEO,
    Clip,
    Export,
    make_store,
    thumos_tables,
)
from tests.exports.test_contracts import centers, error_of
from tspcli.errors import AnnotationError, ExportError, UsageError
from tspcli.sampling import Sampling
from tspcli.store import open_store

OWN = (Clip("a_0.0_150.0", 150.0, 25.0), Clip("b_150.0_300.0", 61.3, 30.0))
PLAIN = (Clip("cook", 12.4, 25.0), Clip("cook2", 8.0, 30.0))


@pytest.fixture
def own_store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "own.h5", OWN, Sampling())


@pytest.fixture
def plain_store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "plain.h5", PLAIN, Sampling(stride=1))


def rows_of_store(store: Path, key: str) -> np.ndarray:
    with open_store(store) as opened:
        return opened[key].rows


def moment_detr(folder: Path, vid: str, max_v_l: int = 75) -> np.ndarray:
    """What its loader hands on before it normalises."""
    return np.load(folder / f"{vid}.npz")["features"][:max_v_l].astype(np.float32)


class TestQvHighlights:
    def test_each_row_is_two_seconds(self, own_store: Path, export: Export, tmp_path: Path) -> None:
        report = export(own_store, "qvhighlights", tmp_path / "clip_features")
        for number, clip in enumerate(OWN):
            rows = moment_detr(tmp_path / "clip_features", clip.key)
            assert rows.shape == (round(clip.duration_s / 2), DIM)
            np.testing.assert_allclose(rows[:, VIDEO], number, atol=1e-3)
            assigned = 2.0 * np.arange(len(rows)) + 1
            assert error_of(rows, assigned, centers(own_store, clip.key))[1] < 0.25
        assert report.time_errors["clips"].inside_s < 0.25
        assert f"--v_feat_dim {DIM}" in report.usage and "--max_v_l" not in report.usage

    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    def test_rows_of_that_rhythm_stay(self, export: Export, tmp_path: Path, dtype: str) -> None:
        """CLIP's frame in the middle of every 2 s, as the reader's authors extract it."""
        each = Sampling(Fraction(1, 2), 1, 1, Fraction(1, 2))
        store = make_store(tmp_path / "clip.h5", OWN, each)
        report = export(store, "qvhighlights", tmp_path / "out", dtype=dtype)
        for clip in OWN:
            written = np.load(tmp_path / "out" / f"{clip.key}.npz")["features"]
            assert written.dtype == dtype
            np.testing.assert_array_equal(written, rows_of_store(store, clip.key).astype(dtype))
        assert report.time_errors["clips"].worst_s == 0

    def test_captions_become_queries(self, own_store: Path, export: Export, tmp_path: Path) -> None:
        captions = {
            "a_0.0_150.0": {
                "duration": 150.0,
                "timestamps": [[3, 6.5], [9, 10], [140, 150]],
                "sentences": ["He jumps", "He lands", "He jumps"],
            },
            "b_150.0_300.0": {"duration": 61.3, "timestamps": [[60, 61.3]], "sentences": ["End"]},
        }
        for name, (video, entry) in zip(("train", "val"), captions.items(), strict=True):
            (tmp_path / f"{name}.json").write_text(json.dumps({video: entry}))
        given = [tmp_path / "train.json", tmp_path / "val.json"]
        report = export(own_store, "qvhighlights", tmp_path / "out", given)
        lines = []
        for name in ("train", "val"):
            text = (tmp_path / "out" / "annotations" / f"{name}.jsonl").read_text()
            lines += [json.loads(line) for line in text.splitlines()]
        assert len({line["qid"] for line in lines}) == len(lines) == 3
        jumps = lines[0]
        assert jumps["vid"] == "a_0.0_150.0" and jumps["duration"] == 150
        assert jumps["relevant_windows"] == [[3, 6.5], [140, 150]]
        assert jumps["relevant_clip_ids"] == [1, 2, 3, 70, 71, 72, 73, 74]
        assert len(jumps["saliency_scores"]) == len(jumps["relevant_clip_ids"])
        # No row shows the end of b, whose last row ends at 62 s: its clips are within the rows.
        assert lines[2]["relevant_clip_ids"] == [30]
        assert "train.jsonl" in report.usage and "val.jsonl" in report.usage


class TestEgo4D:
    def test_rows_of_clips(self, own_store: Path, export: Export, tmp_path: Path) -> None:
        export(own_store, "ego4d", tmp_path / "out")
        tensor = torch.load(tmp_path / "out" / f"{OWN[0].key}.pt", weights_only=True)
        assert tensor.dtype == torch.float32 and tensor.shape == (round(150 * 30 / 16), DIM)
        # VSLNet's cut of a clip: rows int(start * 1.875) to int(end * 1.875), both inclusive.
        first, last = int(20.0 * 30 / 16), int(60.0 * 30 / 16)
        rows = tensor[first : last + 1].numpy()
        assigned = (np.arange(first, last + 1) + 0.5) * 16 / 30
        assert error_of(rows, assigned, centers(own_store, OWN[0].key))[1] < 0.01

    def test_rows_by_ego4ds_recipe_stay(self, export: Export, tmp_path: Path) -> None:
        store = make_store(tmp_path / "slowfast.h5", OWN, Sampling(30, 32, 16))
        report = export(store, "ego4d", tmp_path / "out")
        for clip in OWN:
            tensor = torch.load(tmp_path / "out" / f"{clip.key}.pt", weights_only=True)
            np.testing.assert_array_equal(tensor.numpy(), rows_of_store(store, clip.key))
        assert report.time_errors["rows"].worst_s == pytest.approx(8 / 30)


class TestSegmentation:
    TABLE = (
        "video,start,end,label,subset\n"
        "cook,1.0,3.0,cut tomato,train\ncook,3.0,5.5,peel,train\ncook,5.0,6.0,cut tomato,train\n"
        "cook2,0.0,4.0,peel,val\n"
    )

    def test_layout(self, plain_store: Path, export: Export, tmp_path: Path) -> None:
        (tmp_path / "actions.csv").write_text(self.TABLE)
        out = tmp_path / "out"
        report = export(plain_store, "segmentation", out, [tmp_path / "actions.csv"])
        # As MS-TCN reads them: what follows the last line end is dropped.
        lines = (out / "mapping.txt").read_text().split("\n")[:-1]
        actions = {line.split()[1]: int(line.split()[0]) for line in lines}
        assert actions == {"background": 0, "cut_tomato": 1, "peel": 2}
        bundles = {
            split: (out / "splits" / f"{split}.split1.bundle").read_text().split("\n")[:-1]
            for split in ("train", "test")
        }
        assert bundles == {"train": ["cook.txt"], "test": ["cook2.txt"]}
        for clip in PLAIN:
            features = np.load(out / "features" / f"{clip.key}.npy")
            labels = (out / "groundTruth" / f"{clip.key}.txt").read_text().split("\n")[:-1]
            n_frames = round(clip.duration_s * clip.fps)
            assert features.shape == (DIM, n_frames) and len(labels) == n_frames
            assigned = (np.arange(n_frames) + 0.5) / clip.fps
            assert error_of(features.T, assigned, centers(plain_store, clip.key))[1] < 0.021
        labels = (out / "groundTruth" / "cook.txt").read_text().split()
        at = {second: labels[int(second * 25)] for second in (0.5, 1.0, 2.98, 3.0, 5.2, 6.0)}
        assert list(at.values()) == [
            "background", "cut_tomato", "cut_tomato", "peel", "cut_tomato", "background",
        ]  # fmt: skip
        assert any("12 frames" in note or "13 frames" in note for note in report.notes)

    def test_a_row_per_frame_stays(self, export: Export, tmp_path: Path) -> None:
        clips = (Clip("cook", 12.4, 30.0),)
        store = make_store(tmp_path / "i3d.h5", clips, Sampling(30, 1, 1))
        report = export(store, "segmentation", tmp_path / "out")
        features = np.load(tmp_path / "out" / "features" / "cook.npy")
        np.testing.assert_array_equal(features.T, rows_of_store(store, "cook"))
        assert report.time_errors["frames"].worst_s < 1e-9

    def test_names_with_dots(self, own_store: Path, export: Export, tmp_path: Path) -> None:
        with refused(ExportError, video=OWN[0].key):
            export(own_store, "segmentation", tmp_path / "out")

    def test_two_labels_of_one_word(
        self, plain_store: Path, export: Export, tmp_path: Path
    ) -> None:
        (tmp_path / "actions.csv").write_text(self.TABLE + "cook2,5,6,cut_tomato,val\n")
        with refused(AnnotationError, value="cut_tomato"):
            export(plain_store, "segmentation", tmp_path / "out", [tmp_path / "actions.csv"])


class TestOnline:
    def test_rows_and_targets(self, thumos_store: Path, export: Export, tmp_path: Path) -> None:
        out = tmp_path / "out"
        report = export(thumos_store, "online", out, thumos_tables(tmp_path, THUMOS))
        info = json.loads((out / "data_info.json").read_text())["THUMOS"]
        assert info["num_classes"] == len(info["class_names"]) == 22
        assert info["class_names"][0] == "Background" and info["ignore_index"] == 21
        assert info["fps"] == 4 and info["data_root"] == str(out)
        assert info["train_session_set"] == sorted(c.key for c in THUMOS if "valid" in c.key)
        assert len(info["test_session_set"]) == 4
        billiards, diving = (info["class_names"].index(c) for c in ("Billiards", "Diving"))
        for clip in THUMOS:
            visual = np.load(out / "rgb_tspcli" / f"{clip.key}.npy")
            motion = np.load(out / "flow_kinetics_bninception" / f"{clip.key}.npy")
            target = np.load(out / "target_perframe" / f"{clip.key}.npy")
            n = max(1, round(clip.duration_s * 4))
            assert visual.shape == (n, DIM) and target.shape == (n, 22)
            assert motion.shape == (n, 1024) and not motion.any()
            assigned = (np.arange(n) + 0.5) / 4
            assert error_of(visual, assigned, centers(thumos_store, clip.key))[1] < 0.05
            if n > 10:
                assert target[5].tolist() == np.eye(22)[billiards].tolist()
                assert target[int(clip.duration_s * 0.8 * 4), diving] == 1
                assert target[-1].tolist() == np.eye(22)[0].tolist()
                assert target[1, 21] == 1 and target[1, billiards] == 1
        assert "INPUT.MODALITY visual" in report.usage
        assert f"{{'rgb_tspcli': {DIM}}}" in report.usage

    def test_two_streams(self, thumos_store: Path, export: Export, tmp_path: Path) -> None:
        out = tmp_path / "out"
        report = export(thumos_store, "online", out, flow="split", split_channels=500)
        key = THUMOS[0].key
        assert np.load(out / "rgb_tspcli" / f"{key}.npy").shape[1] == 500
        assert np.load(out / "flow_kinetics_bninception" / f"{key}.npy").shape[1] == DIM - 500
        assert "INPUT.MODALITY twostream" in report.usage

    def test_options_without_effect(
        self, thumos_store: Path, export: Export, tmp_path: Path
    ) -> None:
        with refused(UsageError, option="--split-channels"):
            export(thumos_store, "online", tmp_path / "out", split_channels=5)
        with refused(UsageError, option="--flow"):
            export(thumos_store, "online", tmp_path / "out", flow="empty")
        with refused(ExportError, option="--split-channels"):
            export(thumos_store, "online", tmp_path / "o", flow="split", split_channels=DIM)


class TestVidChapters:
    def test_both_readers_find_their_rows(
        self, anet_store: Path, export: Export, tmp_path: Path
    ) -> None:
        path = tmp_path / "clipvitl14.pth"
        export(anet_store, "vidchapters", path)
        features = torch.load(path, weights_only=True)
        for number, clip in enumerate(ANET):
            for key in (clip.key, clip.key[-11:]):
                rows = features[key].numpy()
                np.testing.assert_array_equal(rows, rows_of_store(anet_store, clip.key))
                assert rows[0, VIDEO] == number
        # Both names share the rows, and nothing else is left.
        n_values = sum(len(rows_of_store(anet_store, clip.key)) for clip in ANET) * DIM
        assert path.stat().st_size < 4 * n_values * 1.01 + 10_000
        assert {p.name for p in tmp_path.iterdir()} == {path.name, f"{path.name}.export"}

    def test_vidchapters_picks(self, anet_store: Path, export: Export, tmp_path: Path) -> None:
        export(anet_store, "vidchapters", tmp_path / "out", length=100, resize="centers")
        features = torch.load(tmp_path / "out" / "features.pth", weights_only=True)
        for clip in ANET:
            rows = features[clip.key[-11:]].numpy()
            picked = rows[[j * len(rows) // 100 for j in range(100)]]
            assigned = (np.arange(100) + 0.5) / 100 * clip.duration_s
            assert error_of(picked, assigned, centers(anet_store, clip.key))[1] < 2e-3

    def test_names_that_end_alike(self, export: Export, tmp_path: Path) -> None:
        clips = (Clip("one_ABCDEFGHIJK", 5.0, 30.0), Clip("two_ABCDEFGHIJK", 5.0, 30.0))
        store = make_store(tmp_path / "s.h5", clips, Sampling())
        with refused(ExportError, video="two_ABCDEFGHIJK"):
            export(store, "vidchapters", tmp_path / "out")


class TestParquet:
    def test_rows_with_seconds(self, anet_store: Path, export: Export, tmp_path: Path) -> None:
        parquet = pytest.importorskip("pyarrow.parquet")
        export(anet_store, "parquet", tmp_path / "all.parquet")
        table = parquet.read_table(tmp_path / "all.parquet")
        assert parquet.ParquetFile(tmp_path / "all.parquet").num_row_groups == len(ANET)
        frame = {name: table.column(name).to_pylist() for name in ("video", "row", "center_s")}
        rows = np.array(table.column("features").to_pylist(), np.float32)
        np.testing.assert_allclose(rows[:, TIME], frame["center_s"], atol=1e-4)
        length = np.subtract(table.column("end_s").to_numpy(), table.column("start_s").to_numpy())
        np.testing.assert_allclose(length, 16 / 15)
        assert frame["row"][0] == 0 and set(frame["video"]) == {clip.key for clip in ANET}

    def test_without_pyarrow(
        self, anet_store: Path, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
        with refused(ExportError, option="--to"):
            export(anet_store, "parquet", tmp_path / "out")
        assert not (tmp_path / "out").exists()
