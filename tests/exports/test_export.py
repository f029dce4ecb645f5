"""Options, missing videos, inputs, and what is left behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from tests.builders.refusals import refused
from tests.builders.stores import damaged_store
from tests.exports.conftest import ANET, THUMOS, Clip, Export, anet_json, make_foreign, make_store
from tspcli.cli.main import cli
from tspcli.core.run_dir import one_writer
from tspcli.errors import (
    AnnotationError,
    ExportError,
    StoreError,
    StoreLockedError,
    StoreMismatchError,
    UsageError,
)
from tspcli.exports.export_options import option_name
from tspcli.sampling import Sampling
from tspcli.store import open_store

TSP = Sampling()
ROOT = Path(__file__).parents[2]


def names(folder: Path, suffix: str = ".npy") -> set[str]:
    return {path.name for path in folder.glob(f"*{suffix}")}


class TestInputs:
    def test_released_files_ask_for_their_sampling(self, tmp_path: Path, export: Export) -> None:
        path = make_foreign(tmp_path / "released.h5", ANET, TSP)
        with pytest.raises(ExportError) as caught:
            export(path, "actionformer", tmp_path / "out")
        for part in ("--frame-rate 15", "--stride 16", "--stride 1", "--clip-length 16"):
            assert part in str(caught.value)
        report = export(path, "actionformer", tmp_path / "out", sampling=TSP)
        assert report.time_errors["steps"].inside_s < 1e-9

    def test_a_store_is_not_contradicted(
        self, anet_store: Path, export: Export, tmp_path: Path
    ) -> None:
        with pytest.raises(UsageError, match="stride 16"):
            export(anet_store, "npy", tmp_path / "out", sampling=Sampling(stride=1))
        export(anet_store, "npy", tmp_path / "out", sampling=TSP)

    def test_centers_need_a_duration(self, tmp_path: Path, export: Export) -> None:
        path = make_foreign(tmp_path / "released.h5", ANET, TSP)
        options = {"length": 100, "resize": "centers", "sampling": TSP}
        with refused(ExportError, option="--resize"):
            export(path, "bmn", tmp_path / "out", **options)
        metadata = tmp_path / "train_metadata.csv"
        lines = [f"{c.key}.mp4,{c.duration_s},30,{round(c.duration_s * 30)}\n" for c in ANET]
        metadata.write_text("filename,video-duration,fps,video-frames\n" + "".join(lines))
        report = export(path, "bmn", tmp_path / "out", [metadata], **options)
        assert report.time_errors["proposals"].inside_s < 1e-9

    def test_gtad_thumos_needs_a_rate(self, tmp_path: Path, export: Export) -> None:
        sampling = Sampling(stride=1)
        path = make_foreign(tmp_path / "released.h5", THUMOS, sampling)
        with refused(ExportError, option="--row-rate"):
            export(path, "gtad-thumos", tmp_path / "out", sampling=sampling)
        export(path, "gtad-thumos", tmp_path / "out", sampling=sampling, row_rate=30.0)

    def test_several_stores(self, tmp_path: Path, export: Export) -> None:
        train = make_store(tmp_path / "train.h5", ANET[:3], TSP)
        valid = make_store(tmp_path / "valid.h5", ANET[3:], TSP)
        report = export([train, valid], "gtad-anet", tmp_path / "all.hdf5")
        assert report.n_videos == len(ANET)
        with h5py.File(tmp_path / "all.hdf5") as file:
            assert set(file) == {clip.key for clip in ANET}
        # Store and released file together, too.
        released = make_foreign(tmp_path / "released.h5", ANET[3:], TSP)
        export([train, released], "gtad-anet", tmp_path / "mixed.hdf5", sampling=TSP)

    def test_a_video_in_two_stores(self, tmp_path: Path, export: Export) -> None:
        one = make_store(tmp_path / "1.h5", ANET[:3], TSP)
        two = make_store(tmp_path / "2.h5", ANET[2:], TSP)
        with pytest.raises(StoreError, match=ANET[2].key):
            export([one, two], "npy", tmp_path / "out")

    def test_stores_of_other_settings_do_not_mix(self, tmp_path: Path, export: Export) -> None:
        one = make_store(tmp_path / "1.h5", ANET[:3], TSP)
        two = make_store(tmp_path / "2.h5", ANET[3:], TSP, backbone="r3d_18")
        with pytest.raises(StoreMismatchError, match=r"backbone: r3d_18, not r2plus1d_34"):
            export([one, two], "npy", tmp_path / "out")
        wide = make_foreign(tmp_path / "wide.h5", ANET[3:], TSP, dim=1024)
        with pytest.raises(StoreMismatchError, match="width 1024"):
            export([one, wide], "npy", tmp_path / "out", sampling=TSP)

    @pytest.mark.parametrize("dim", [400, 1024, 2048])
    def test_other_encoders(self, tmp_path: Path, export: Export, dim: int) -> None:
        store = make_store(tmp_path / "s.h5", ANET[:2], TSP, dim=dim)
        report = export(store, "gtad-anet", tmp_path / "g.hdf5")
        assert f"--feat_dim {dim}" in report.usage
        assert export(store, "bmn", tmp_path / "bmn").width == dim
        if dim > 1024:
            with refused(ExportError, option="--pad-channels", value=dim):
                export(store, "bmt", tmp_path / "bmt")
        else:
            assert export(store, "bmt", tmp_path / "bmt").width == 1024
        if dim == 400:
            with refused(ExportError, option="--pad-channels", value=dim):
                export(store, "pdvc", tmp_path / "pdvc")
        else:
            assert export(store, "pdvc", tmp_path / "pdvc").width == dim

    def test_gtad_needs_a_width_by_four(self, tmp_path: Path, export: Export) -> None:
        store = make_store(tmp_path / "s.h5", ANET[:2], TSP, dim=102)
        with refused(ExportError, option="--pad-channels", value=102):
            export(store, "gtad-anet", tmp_path / "g.hdf5")
        # Width 100 looks resized to G-TAD.
        store = make_store(tmp_path / "t.h5", ANET[:2], TSP, dim=100)
        with refused(ExportError, option="--length", value=100):
            export(store, "gtad-anet", tmp_path / "g.hdf5")

    def test_an_empty_store(self, tmp_path: Path, export: Export) -> None:
        with h5py.File(tmp_path / "none.h5", "w"):
            pass
        with pytest.raises(ExportError, match="no video"):
            export(tmp_path / "none.h5", "npy", tmp_path / "out")


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    return damaged_store(tmp_path / "damaged.h5")


def test_damaged_rows_are_not_exported(damaged: Path, export: Export, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="'v_bad'"):
        export(damaged, "npy", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_annotations_that_are_no_text(anet_store: Path, export: Export, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00{")
    with refused(AnnotationError, path=tmp_path / "a.json"):
        export(anet_store, "npy", tmp_path / "out", [tmp_path / "a.json"])


class TestOptions:
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
    def test_options_without_annotations_have_no_effect(
        self, anet_store: Path, tmp_path: Path, options: list[str]
    ) -> None:
        command = ["export", str(anet_store), "--to", "bmn", "-o", str(tmp_path / "out"), *options]
        result = CliRunner().invoke(cli, command, standalone_mode=False)
        assert isinstance(result.exception, UsageError)
        assert result.exception.data["option"] == options[0]
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("target", "options"),
        [
            ("official", {"length": 100}),
            ("official", {"flow": "zeros"}),
            ("bmn", {"row_rate": 5.0}),
            ("actionformer", {"grid_s": 2.0}),
            ("opentad", {"container": "hdf5"}),
        ],
    )
    def test_options_without_meaning_are_refused(
        self, anet_store: Path, export: Export, tmp_path: Path, target: str, options: dict
    ) -> None:
        (option,) = options
        with refused(UsageError, option=option_name(option)):
            export(anet_store, target, tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        "options",
        [
            {"length": 0},
            {"length": 10, "row_rate": 2.0},
            {"resize": "cubic"},
            {"resize": "linear"},
            {"name_prefix": "prepend:v_"},
        ],
    )
    def test_nonsense_is_refused(
        self, anet_store: Path, export: Export, tmp_path: Path, options: dict
    ) -> None:
        with pytest.raises(UsageError):
            export(anet_store, "npy", tmp_path / "out", **options)

    def test_half_precision(self, anet_store: Path, export: Export, tmp_path: Path) -> None:
        export(anet_store, "npy", tmp_path / "out", dtype="float16")
        assert np.load(tmp_path / "out" / f"{ANET[0].key}.npy").dtype == np.float16
        export(anet_store, "gtad-anet", tmp_path / "g.hdf5", dtype="float16")
        with h5py.File(tmp_path / "g.hdf5") as file:
            assert file[ANET[0].key].dtype == np.float16

    def test_half_precision_ends(self, tmp_path: Path, export: Export) -> None:
        with h5py.File(tmp_path / "large.h5", "w") as file:
            file["v_large"] = np.full((3, 512), 7e4, np.float32)
        with refused(ExportError, option="--dtype", video="v_large"):
            export(tmp_path / "large.h5", "npy", tmp_path / "o", sampling=TSP, dtype="float16")
        assert not (tmp_path / "o").exists()

    def test_values_that_are_not_finite_are_noted(self, tmp_path: Path, export: Export) -> None:
        with h5py.File(tmp_path / "nan.h5", "w") as file:
            file["v_nan"] = np.full((3, 512), np.nan, np.float32)
        report = export(tmp_path / "nan.h5", "npy", tmp_path / "o", sampling=TSP)
        assert any("not finite" in note and "v_nan" in note for note in report.notes)

    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    def test_bmt_never_sees_its_mask(self, tmp_path: Path, export: Export, dtype: str) -> None:
        rows = np.zeros((4, 512), np.float32)
        rows[1, 0] = 1.0
        rows[2, 0] = np.nextafter(np.float32(1), np.float32(2))  # 1 in half precision
        with h5py.File(tmp_path / "one.h5", "w") as file:
            file["v_one"] = rows
        report = export(tmp_path / "one.h5", "bmt", tmp_path / "o", sampling=TSP, dtype=dtype)
        written = np.load(tmp_path / "o" / "v_one_rgb.npy")
        assert not (written[:, 0] == 1).any()
        np.testing.assert_allclose(written[:, 0].astype(float), rows[:, 0], atol=1e-3)
        assert any("exactly 1" in note for note in report.notes)

    def test_bmt_has_a_limit_of_rows(
        self, thumos_store: Path, export: Export, tmp_path: Path
    ) -> None:
        sampling = Sampling(stride=1)
        store = make_store(tmp_path / "long.h5", [Clip("v_long", 300.0, 30.0)], sampling)
        with refused(ExportError, option="--grid-seconds", video="v_long"):
            export(store, "bmt", tmp_path / "o")
        assert export(store, "bmt", tmp_path / "o", grid_s=2.56).n_rows == 117

    @pytest.mark.parametrize("flow", ["empty", "split"])
    def test_bmt_adds_its_streams(
        self, anet_store: Path, export: Export, tmp_path: Path, flow: str
    ) -> None:
        with refused(UsageError, option="--flow", value=flow):
            export(anet_store, "bmt", tmp_path / "o", flow=flow)

    def test_split_at_a_chosen_channel(
        self, thumos_store: Path, export: Export, tmp_path: Path
    ) -> None:
        export(thumos_store, "gtad-thumos", tmp_path / "o", split_channels=100)
        with h5py.File(tmp_path / "o" / "flow_val.h5") as flow:
            assert flow[THUMOS[0].key].shape[1] == 100
        with refused(ExportError, option="--split-channels", value=512):
            export(thumos_store, "gtad-thumos", tmp_path / "p", split_channels=512)

    def test_actionformer_takes_a_path_with_hdf5_to_be_a_file(
        self, anet_store: Path, thumos_store: Path, export: Export, tmp_path: Path
    ) -> None:
        with refused(ExportError, option="--out", path=tmp_path / "my.hdf5.folder"):
            export(anet_store, "actionformer", tmp_path / "my.hdf5.folder")
        report = export(anet_store, "actionformer", tmp_path / "a.hdf5", container="hdf5")
        assert (tmp_path / "a.hdf5").is_file()
        assert str(tmp_path / "a.hdf5") in report.usage
        with refused(ExportError, option="--container"):
            export(thumos_store, "actionformer", tmp_path / "t", container="hdf5")

    def test_suffix(self, anet_store: Path, export: Export, tmp_path: Path) -> None:
        report = export(anet_store, "opentad", tmp_path / "o", suffix="_tsp")
        assert f"{ANET[0].key}_tsp.npy" in names(tmp_path / "o")
        assert report.options["suffix"] == "_tsp"
        config = (tmp_path / "o" / "opentad.py").read_text()
        assert "suffix='_tsp'" in config

    def test_official_per_subset(
        self, anet_store: Path, anet_annotations: Path, export: Export, tmp_path: Path
    ) -> None:
        export(anet_store, "official", tmp_path / "o", [anet_annotations], per_subset=True)
        with h5py.File(tmp_path / "o" / "train_features.h5") as file:
            assert set(file) == {clip.key for clip in ANET[::2]}
        with h5py.File(tmp_path / "o" / "valid_features.h5") as file:
            assert set(file) == {clip.key for clip in ANET[1::2]}
        with refused(AnnotationError, option="--per-subset"):
            export(anet_store, "official", tmp_path / "p", per_subset=True)

    def test_a_resized_export_does_not_pass_for_a_store(
        self, anet_store: Path, export: Export, tmp_path: Path
    ) -> None:
        export(anet_store, "gtad-anet", tmp_path / "g.hdf5", length=100)
        with open_store(tmp_path / "g.hdf5") as again:
            assert again.metadata.settings == {}
            with pytest.raises(StoreError, match=r"g\.hdf5"):
                _ = again[ANET[0].key].center_s


class TestMissing:
    @pytest.fixture
    def wider(self, tmp_path: Path) -> Path:
        return anet_json(tmp_path / "wider.json", ANET, ["GONE_1", "GONE_2"])

    def test_error_names_them(
        self, anet_store: Path, export: Export, tmp_path: Path, wider: Path
    ) -> None:
        with refused(ExportError, option="--missing", videos=["v_GONE_1", "v_GONE_2"]):
            export(anet_store, "gtad-anet", tmp_path / "out", [wider])
        assert not (tmp_path / "out").exists()

    def test_skip_filters(
        self, anet_store: Path, export: Export, tmp_path: Path, wider: Path
    ) -> None:
        report = export(anet_store, "gtad-anet", tmp_path / "out", [wider], missing="skip")
        assert report.missing == ["v_GONE_1", "v_GONE_2"]
        infos = json.loads(Path(report.annotations[0]).read_text())
        assert set(infos) == {clip.key for clip in ANET}
        assert not (tmp_path / "out" / "missing_files.txt").exists()
        assert any("2 annotated videos" in note for note in report.notes)

    @pytest.mark.parametrize("target", ["actionformer", "bmn", "gtad-anet"])
    def test_list_lists(
        self, anet_store: Path, export: Export, tmp_path: Path, wider: Path, target: str
    ) -> None:
        report = export(anet_store, target, tmp_path / "out", [wider], missing="list")
        listed = (tmp_path / "out" / "missing_files.txt").read_text().splitlines()
        assert listed == report.missing
        assert len(listed) == 2

    def test_opentad_lists_by_itself(
        self, anet_store: Path, export: Export, tmp_path: Path, wider: Path
    ) -> None:
        export(anet_store, "opentad", tmp_path / "out", [wider])
        assert (tmp_path / "out" / "missing_files.txt").read_text() == "GONE_1\nGONE_2\n"


class TestOutput:
    def test_is_refused_if_it_exists(
        self, anet_store: Path, export: Export, tmp_path: Path
    ) -> None:
        export(anet_store, "npy", tmp_path / "out")
        with refused(ExportError, option="--out", path=tmp_path / "out"):
            export(anet_store, "bmt", tmp_path / "out")
        export(anet_store, "bmt", tmp_path / "out", overwrite=True)
        assert not (tmp_path / "out" / "videos.csv").exists()
        export(anet_store, "gtad-anet", tmp_path / "g.h5")
        with refused(ExportError, option="--out", path=tmp_path / "g.h5"):
            export(anet_store, "official", tmp_path / "g.h5")
        export(anet_store, "official", tmp_path / "g.h5", overwrite=True)
        manifest = json.loads((tmp_path / "g.h5.export" / "export.json").read_text())
        assert manifest["target"] == "official"

    def test_a_folder_of_other_things_is_never_replaced(
        self, anet_store: Path, export: Export, tmp_path: Path
    ) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("all of it")
        with refused(ExportError, option="--out", path=tmp_path / "mine"):
            export(anet_store, "npy", tmp_path / "mine", overwrite=True)
        assert (tmp_path / "mine" / "thesis.txt").read_text() == "all of it"

    def test_the_store_is_not_overwritten(self, tmp_path: Path, export: Export) -> None:
        folder = tmp_path / "f"
        folder.mkdir()
        store = make_store(folder / "s.h5", ANET[:2], TSP)
        for out in (store, folder):
            with refused(ExportError, option="--out", path=out):
                export(store, "official", out, overwrite=True)

    @pytest.mark.faults
    @pytest.mark.parametrize("out", ["out", "all.h5"])
    def test_what_a_killed_export_left_is_cleared(
        self, anet_store: Path, export: Export, tmp_path: Path, out: str
    ) -> None:
        script = (
            "import os, sys, signal\n"
            "from pathlib import Path\n"
            "from tspcli.core.progress import Reporter\n"
            "from tspcli.exports import ExportRequest, export_features\n"
            "class Killer(Reporter):\n"
            "    def advance(self, *figures): os.kill(os.getpid(), signal.SIGKILL)\n"
            "store, out = map(Path, sys.argv[1:])\n"
            "export_features(ExportRequest((store,), 'official', out), reporter=Killer())"
        )
        command = [sys.executable, "-c", script, str(anet_store), str(tmp_path / out)]
        killed = subprocess.run(command, check=False, capture_output=True, cwd=ROOT)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        (left,) = tmp_path.glob(".*.tmp")
        other = tmp_path / ".another.1-deadbeef.tmp"
        other.mkdir()
        report = export(anet_store, "official", tmp_path / out)
        assert not left.exists() and other.exists()
        assert any("1 unfinished export" in note for note in report.notes)
        names = {out, other.name} | ({f"{out}.export"} if out.endswith("h5") else set())
        assert {path.name for path in tmp_path.iterdir()} == names

    def test_two_exports_to_one_place(
        self, anet_store: Path, export: Export, tmp_path: Path
    ) -> None:
        with one_writer(tmp_path / "out"), pytest.raises(StoreLockedError):
            export(anet_store, "npy", tmp_path / "out")
        export(anet_store, "npy", tmp_path / "out")

    @pytest.mark.faults
    @pytest.mark.parametrize("target", ["gtad-anet", "gtad-thumos"])
    def test_a_full_disk_is_noticed_before_hdf5_writes(
        self,
        thumos_store: Path,
        export: Export,
        tmp_path: Path,
        target: str,
        full_disk: None,
    ) -> None:
        with pytest.raises(ExportError):
            export(thumos_store, target, tmp_path / "out.h5")
        assert not list(tmp_path.glob("*out*"))

    @pytest.mark.faults
    @pytest.mark.parametrize("target", ["npy", "bmn", "gtad-anet", "gtad-thumos"])
    def test_an_error_half_way_leaves_nothing(
        self,
        thumos_store: Path,
        export: Export,
        tmp_path: Path,
        target: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        import errno

        from tspcli.exports import export as run

        real, calls = run.read_rows, []

        def full_after_three(*arguments: Any) -> object:
            calls.append(1)
            if len(calls) > 3:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*arguments)

        export(thumos_store, target, tmp_path / "out.h5")
        before = sorted((p, p.stat().st_size) for p in (tmp_path).rglob("*") if p.is_file())
        monkeypatch.setattr(run, "read_rows", full_after_three)
        with pytest.raises(ExportError, match="disk is full"):
            export(thumos_store, target, tmp_path / "out.h5", overwrite=True)
        after = sorted((p, p.stat().st_size) for p in (tmp_path).rglob("*") if p.is_file())
        assert after == before  # the old export is untouched, nothing lies beside it
