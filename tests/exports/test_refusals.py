"""What an export refuses instead of doing something else, or nothing, silently."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from tests.builders.refusals import refused
from tests.builders.stores import features, store
from tests.exports.conftest import ANET, Clip, Export, anet_json, make_foreign, make_store
from tspcli.analysis import view_features
from tspcli.analysis.compare import compare_stores
from tspcli.cli.main import cli
from tspcli.errors import AnnotationError, ExportError, StoreError, TspError, UsageError
from tspcli.sampling import Sampling
from tspcli.store import open_store

TSP = Sampling()


def captions(path: Path, clips: tuple[Clip, ...] = ANET) -> Path:
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".json":
        entry = {"timestamps": [[0, 1]], "sentences": [f"In {path.parent.name}/{path.name}."]}
        path.write_text(json.dumps({c.key: {"duration": c.duration_s, **entry} for c in clips}))
        return path
    header = "video_id\tcaption\tstart\tend\tduration\tphase\tidx\n"
    rows = "".join(f"{c.key}\tIn {path.name}.\t0\t1\t{c.duration_s}\tp\t0\n" for c in clips)
    path.write_text(header + rows)
    return path


class TestCaptions:
    def test_no_file_of_bmt_replaces_another(
        self, anet_store: Path, export: Export, tmp_path: Path
    ) -> None:
        files = [captions(tmp_path / name) for name in ("train.csv", "train_part2.csv")]
        with refused(AnnotationError, path=files[1], value="train"):
            export(anet_store, "bmt", tmp_path / "out", files)
        assert not (tmp_path / "out").exists()
        files = [captions(tmp_path / name) for name in ("val_1.csv", "val_2.csv")]
        report = export(anet_store, "bmt", tmp_path / "out", files)
        assert sorted(Path(p).name for p in report.annotations) == [f.name for f in files]
        for path in report.annotations:
            assert f"In {Path(path).name}." in Path(path).read_text()

    def test_no_file_of_pdvc_replaces_another(
        self, anet_store: Path, export: Export, tmp_path: Path
    ) -> None:
        files = [captions(tmp_path / folder / "train.json") for folder in ("c1", "c2")]
        with refused(AnnotationError, path=files[1], value="train"):
            export(anet_store, "pdvc", tmp_path / "out", files)
        assert not (tmp_path / "out").exists()

    def test_switches_of_bmt_are_its_own(
        self, anet_store: Path, export: Export, tmp_path: Path
    ) -> None:
        path = captions(tmp_path / "my_captions.csv")
        with refused(AnnotationError, path=path):
            export(anet_store, "bmt", tmp_path / "out", [path])
        report = export(anet_store, "bmt", tmp_path / "out", [path], subset="training")
        assert "--train_meta_path" in report.usage and "my_captions" not in report.usage


class TestBounds:
    @pytest.mark.parametrize(
        ("options", "option"),
        [
            ({"grid_s": 1e-7}, "--grid-seconds"),
            ({"row_rate": 1e7}, "--row-rate"),
            ({"row_rate": 1e308}, "--row-rate"),
            ({"length": 10**9}, "--length"),
        ],
    )
    def test_rows(
        self, anet_store: Path, export: Export, tmp_path: Path, options: dict, option: str
    ) -> None:
        with refused(ExportError, option=option):
            export(anet_store, "npy", tmp_path / "out", **options)

    @pytest.mark.parametrize("name", ["row_rate", "grid_s"])
    @pytest.mark.parametrize("value", [float("inf"), float("nan"), -1.0])
    def test_numbers(
        self, anet_store: Path, export: Export, tmp_path: Path, name: str, value: float
    ) -> None:
        option = {"row_rate": "--row-rate", "grid_s": "--grid-seconds"}[name]
        with refused(UsageError, option=option):
            export(anet_store, "npy", tmp_path / "out", **{name: value})

    def test_channels(self, anet_store: Path, export: Export, tmp_path: Path) -> None:
        with refused(UsageError, option="--pad-channels", value=10_000_000):
            export(anet_store, "npy", tmp_path / "out", pad_channels=10_000_000)


class TestEmptyAnnotations:
    @pytest.mark.parametrize("target", ["gtad-anet", "bmn", "mmaction2", "actionformer", "opentad"])
    def test_are_refused(self, export: Export, tmp_path: Path, target: str) -> None:
        path = make_store(tmp_path / "s.h5", ANET[:1], TSP)
        data = json.loads(anet_json(tmp_path / "a.json", ANET[:1]).read_text())
        for video in data["database"].values():
            video["annotations"] = []
        (tmp_path / "a.json").write_text(json.dumps(data))
        with refused(ExportError, option="--annotations"):
            export(path, target, tmp_path / "out", [tmp_path / "a.json"])
        assert not (tmp_path / "out").exists()

    def test_durations_alone_are_no_actions(self, export: Export, tmp_path: Path) -> None:
        path = make_foreign(tmp_path / "released.h5", ANET, TSP)
        lines = [f"{c.key}.mp4,{c.duration_s}\n" for c in ANET]
        metadata = tmp_path / "train_metadata.csv"
        metadata.write_text("filename,video-duration\n" + "".join(lines))
        report = export(path, "actionformer", tmp_path / "out", [metadata], sampling=TSP)
        assert report.annotations == []
        assert any("No actions were given" in note for note in report.notes)

    def test_other_durations_are_noted(
        self, anet_store: Path, anet_annotations: Path, export: Export, tmp_path: Path
    ) -> None:
        metadata = tmp_path / "train_metadata.csv"
        metadata.write_text(f"filename,video-duration\n{ANET[0].key}.mp4,99\n")
        report = export(anet_store, "npy", tmp_path / "out", [anet_annotations, metadata])
        assert any("the duration of 1 video" in note for note in report.notes)


class TestOptionsThatDoNothing:
    @pytest.mark.parametrize(
        "options",
        [
            ["--subset", "holdout"],
            ["--missing", "list"],
            ["--missing", "skip"],
            ["--feature-frame", "keep"],
            ["--label-ids", "ids.json"],
        ],
    )
    def test_in_an_export(self, anet_store: Path, tmp_path: Path, options: list[str]) -> None:
        command = ["export", str(anet_store), "--to", "bmn", "-o", str(tmp_path / "out"), *options]
        result = CliRunner().invoke(cli, command, standalone_mode=False)
        assert isinstance(result.exception, UsageError)
        assert result.exception.data["option"] == options[0]
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--title", "a", "--title", "b"], "2 titles were given for 1 store; 'b'"),
            (["--own-scales"], "--own-scales does nothing"),
            (["--thumbnails", "4"], "--thumbnails does nothing without the video"),
            (["-o", "{}/p.gif"], "'p.gif' does not end in"),
        ],
    )
    def test_in_a_plot(self, tmp_path: Path, options: list[str], said: str) -> None:
        path = store(tmp_path / "s.h5", {"v_a": features(20, 0)})
        options = [option.format(tmp_path) for option in options]
        command = ["plot", str(path), "a", "-o", str(tmp_path / "p.html"), *options]
        result = CliRunner().invoke(cli, command, standalone_mode=False)
        assert isinstance(result.exception, UsageError)
        assert said in str(result.exception)
        # Not the first of two files either.
        assert not (tmp_path / "p.html").exists()


class TestDamagedRows:
    @pytest.fixture
    def damaged(self, tmp_path: Path) -> Path:
        """Rows that are no longer those of which the checksum was made."""
        path = store(
            tmp_path / "damaged.h5",
            {"v_good": features(20, 0), "v_bad": features(20, 1)},
            checksums=True,
        )
        with h5py.File(path, "r+") as file:
            file["v_bad"][7] = np.float32(0.5)
        return path

    def test_are_not_exported(self, damaged: Path, export: Export, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"'v_bad'.*tsp doctor .*damaged\.h5 --repair"):
            export(damaged, "npy", tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_are_neither_drawn_nor_compared(self, damaged: Path, tmp_path: Path) -> None:
        other = store(tmp_path / "o.h5", {k: features(20, i) for i, k in enumerate(("v_bad", "x"))})
        with open_store(damaged) as opened, open_store(other) as another:
            view_features(opened["v_good"], "x")
            with pytest.raises(StoreError, match=r"'v_bad'.*tsp doctor .*--repair"):
                view_features(opened["v_bad"], "x")
            for pair in ((opened, another), (another, opened)):
                with pytest.raises(StoreError, match=r"damaged\.h5: .*'v_bad'"):
                    compare_stores(*pair)


class TestRemedies:
    @pytest.mark.parametrize("content", [None, b"no video"])
    def test_the_video_of_a_plot(self, tmp_path: Path, content: bytes | None) -> None:
        path = store(tmp_path / "s.h5", {"v_a": features(20, 0)})
        if content is not None:
            (tmp_path / "nope.mp4").write_bytes(content)
        command = ["plot", str(path), "a", "-o", str(tmp_path / "p.html")]
        command += ["--video", str(tmp_path / "nope.mp4")]
        result = CliRunner().invoke(cli, command, standalone_mode=False)
        assert isinstance(result.exception, TspError)
        assert "nope.mp4" in result.exception.message
        assert result.exception.remedy

    def test_annotations_that_are_no_text(
        self, anet_store: Path, export: Export, tmp_path: Path
    ) -> None:
        (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00{")
        with refused(AnnotationError, path=tmp_path / "a.json"):
            export(anet_store, "npy", tmp_path / "out", [tmp_path / "a.json"])
