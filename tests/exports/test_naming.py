"""Names of exported videos."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.builders.refusals import refused
from tests.exports.conftest import ANET, Clip, Export, anet_json, make_store
from tspcli.errors import AnnotationError, ExportError, StoreError
from tspcli.sampling import Sampling

TSP = Sampling()


def names(folder: Path, suffix: str = ".npy") -> set[str]:
    return {path.name for path in folder.glob(f"*{suffix}")}


class TestNames:
    MIXED = (*ANET, Clip("women_long_jump", 20, 30))

    @pytest.mark.parametrize("target", ["bmt", "actionformer", "opentad", "pdvc"])
    def test_one_name_without_prefix_changes_no_other(
        self, tmp_path: Path, export: Export, target: str
    ) -> None:
        """Each gets v_ unless it has it: none gets it twice."""
        clips = (*ANET[:1], Clip("long_jump", 20, 30))
        store = make_store(tmp_path / "mixed.h5", clips, TSP)
        export(store, target, tmp_path / "out", data_set="activitynet")
        suffix = "_rgb" if target == "bmt" else ""
        assert names(tmp_path / "out", f"{suffix}.npy") == {
            f"{ANET[0].key}{suffix}.npy",
            f"v_long_jump{suffix}.npy",
        }
        if target == "actionformer":
            config = (tmp_path / "out" / "actionformer.yaml").read_text()
            assert "file_prefix: v_," in config

    @pytest.mark.parametrize("target", ["actionformer", "opentad", "bmn", "gtad-anet"])
    @pytest.mark.parametrize("annotated", ["bare", "with v_"])
    def test_one_odd_name_in_store_and_annotations(
        self, tmp_path: Path, export: Export, target: str, annotated: str
    ) -> None:
        store = make_store(tmp_path / "mixed.h5", self.MIXED, TSP)
        data = json.loads(anet_json(tmp_path / "a.json", self.MIXED, ["GONE"]).read_text())
        if annotated == "with v_":
            data["database"] = {
                name if name == "women_long_jump" else f"v_{name}": video
                for name, video in data["database"].items()
            }
        (tmp_path / "a.json").write_text(json.dumps(data))
        report = export(
            store,
            target,
            tmp_path / "out",
            [tmp_path / "a.json"],
            missing="skip",
            data_set="activitynet",
        )
        written = json.loads(Path(report.annotations[0]).read_text())
        bare = target in ("actionformer", "opentad")
        written = written["database"] if bare else written
        field = "duration" if bare else "duration_second"
        # The seconds of each are its own.
        assert {name: video[field] for name, video in written.items()} == {
            ("" if bare else "v_") + c.key.removeprefix("v_"): c.duration_s for c in self.MIXED
        }
        assert report.unannotated == 0
        assert report.missing == ["GONE" if bare else "v_GONE"]

    def test_equal_names_belong_together_before_others(
        self, tmp_path: Path, export: Export
    ) -> None:
        """Of ID and v_ID in a store, annotations of ID mean the first."""
        clips = (Clip("same", 20, 30), Clip("v_same", 40, 30))
        store = make_store(tmp_path / "s.h5", clips, TSP)
        path = anet_json(tmp_path / "a.json", clips[:1])
        report = export(store, "opentad", tmp_path / "out", [path], name_prefix="keep")
        database = json.loads(Path(report.annotations[0]).read_text())["database"]
        assert {name: video["duration"] for name, video in database.items()} == {"same": 20}
        assert report.unannotated == 1

    def test_what_may_be_two_names_is_refused(self, tmp_path: Path, export: Export) -> None:
        store = make_store(tmp_path / "s.h5", [Clip("v_q", 20, 30)], TSP)
        path = tmp_path / "a.json"
        path.write_text(json.dumps({"database": {n: {"duration": 9} for n in ("q", "v_v_q")}}))
        with pytest.raises(AnnotationError, match="'v_q'"):
            export(store, "npy", tmp_path / "out", [path])
        store = make_store(tmp_path / "t.h5", [Clip(n, 20, 30) for n in ("q", "v_v_q")], TSP)
        path.write_text(json.dumps({"database": {"v_q": {"duration": 9}}}))
        with pytest.raises(AnnotationError, match="'v_q'"):
            export(store, "npy", tmp_path / "out", [path])

    def test_strip_needs_something_to_strip(self, tmp_path: Path, export: Export) -> None:
        store = make_store(tmp_path / "mixed.h5", self.MIXED, TSP)
        export(store, "npy", tmp_path / "out", name_prefix="strip:v_")
        assert names(tmp_path / "out") == {f"{c.key.removeprefix('v_')}.npy" for c in self.MIXED}
        with refused(ExportError, option="--name-prefix", value="x_"):
            export(store, "npy", tmp_path / "none", name_prefix="strip:x_")

    def test_a_suffix_that_no_name_can_have(
        self, anet_store: Path, export: Export, tmp_path: Path
    ) -> None:
        with refused(ExportError, option="--suffix", value="../x"):
            export(anet_store, "npy", tmp_path / "out", suffix="../x")

    @pytest.mark.parametrize(
        ("rule", "expected"),
        [
            ("auto", "v_ABCDEFGHI24"),
            ("keep", "v_ABCDEFGHI24"),
            ("add:v_", "v_ABCDEFGHI24"),
            ("add:x_", "x_v_ABCDEFGHI24"),
            ("strip:v_", "ABCDEFGHI24"),
        ],
    )
    def test_rules(
        self, anet_store: Path, export: Export, tmp_path: Path, rule: str, expected: str
    ) -> None:
        export(anet_store, "npy", tmp_path / "out", name_prefix=rule)
        assert f"{expected}.npy" in names(tmp_path / "out")

    def test_annotations_follow_the_names(
        self, tmp_path: Path, export: Export, anet_annotations: Path
    ) -> None:
        """Stores and annotations may or may not have v_; the reader's files agree anyway."""
        bare = [Clip(c.key.removeprefix("v_"), c.duration_s, c.fps) for c in ANET]
        store = make_store(tmp_path / "bare.h5", bare, TSP)
        report = export(store, "bmn", tmp_path / "bmn", [anet_annotations])
        infos = json.loads(Path(report.annotations[0]).read_text())
        tables = {path.stem for path in (tmp_path / "bmn" / "csv_mean_100").iterdir()}
        assert set(infos) == tables == {c.key for c in ANET}
        export(store, "actionformer", tmp_path / "af", [anet_annotations], data_set="activitynet")
        assert names(tmp_path / "af") == {f"{c.key}.npy" for c in ANET}
        database = json.loads((tmp_path / "af/annotations/activitynet.json").read_text())
        assert set(database["database"]) == {c.key for c in bare}

    def test_names_that_do_not_meet_the_annotations(
        self, anet_store: Path, export: Export, tmp_path: Path
    ) -> None:
        other = anet_json(tmp_path / "other.json", [Clip("v_ZZZ", 10, 30)])
        with refused(ExportError, option="--annotations"):
            export(anet_store, "bmn", tmp_path / "out", [other])

    def test_two_names_become_one(self, tmp_path: Path, export: Export) -> None:
        clips = [Clip("a_x", 20, 30), Clip("a_y", 20, 30)]
        first = make_store(tmp_path / "1.h5", clips[:1], TSP)
        second = make_store(tmp_path / "2.h5", [Clip("v_a_x", 20, 30)], TSP)
        with refused(ExportError, option="--name-prefix", value="v_a_x"):
            export([first, second], "bmn", tmp_path / "out")

    def test_pdvc_reads_thirteen_characters(self, tmp_path: Path, export: Export) -> None:
        clips = [Clip("v_a_long_name_one", 20, 30), Clip("v_another_long", 20, 30)]
        export(make_store(tmp_path / "1.h5", clips, TSP), "pdvc", tmp_path / "out")
        assert names(tmp_path / "out") == {"v_a_long_name.npy", "v_another_lon.npy"}
        clips.append(Clip("v_a_long_name_two", 20, 30))
        with refused(ExportError, video="v_a_long_name_two"):
            export(make_store(tmp_path / "2.h5", clips, TSP), "pdvc", tmp_path / "out2")

    def test_gtad_thumos_needs_val_or_test(
        self, anet_store: Path, export: Export, tmp_path: Path
    ) -> None:
        with refused(ExportError, option="--name-prefix", video="v_ABCDEF-2997"):
            export(anet_store, "gtad-thumos", tmp_path / "out")
        report = export(anet_store, "gtad-thumos", tmp_path / "out", name_prefix="add:val_")
        assert any("last four characters" in note for note in report.notes)
        with h5py.File(tmp_path / "out" / "rgb_test.h5") as file:
            assert len(file) == 0  # the reader opens it all the same

    @pytest.mark.parametrize("key", ["..", ".hidden", "a\\b", "a\nb", "\u202egnp", "x" * 300])
    @pytest.mark.parametrize("target", ["npy", "bmn", "official"])
    def test_no_name_leaves_the_folder(
        self, tmp_path: Path, export: Export, key: str, target: str
    ) -> None:
        path = tmp_path / "odd.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset(key.encode(), data=np.zeros((3, 512), np.float32))
        with pytest.raises((ExportError, StoreError)) as caught:
            export(path, target, tmp_path / "out", sampling=TSP, name_prefix="keep")
        shown = repr(key)[1:-1]
        assert shown in str(caught.value) or key in str(caught.value)
        assert [path.name for path in tmp_path.iterdir()] == ["odd.h5"]

    def test_a_name_may_have_any_space(self, tmp_path: Path, export: Export) -> None:
        odd = "\u6771\u4eac\u3000\u30bf\xa0x\u200dy"
        store = make_store(tmp_path / "s.h5", [Clip(odd, 20, 30)], TSP)
        export(store, "npy", tmp_path / "out")
        assert names(tmp_path / "out") == {f"{odd}.npy"}

    def test_a_group_is_named(self, tmp_path: Path, export: Export) -> None:
        path = tmp_path / "nested.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("a/b", data=np.zeros((3, 512), np.float32))
        with pytest.raises(StoreError, match="'a'"):
            export(path, "npy", tmp_path / "out", sampling=TSP)

    @pytest.mark.parametrize("name", ["caf\u00e9", "\ud55c\uad6d", "\u30ac\u30e9\u30b9"])
    def test_annotations_in_another_unicode_form_are_of_the_same_video(
        self, tmp_path: Path, export: Export, name: str
    ) -> None:
        clips = [Clip(unicodedata.normalize("NFD", name), 20, 30), Clip("plain", 20, 30)]
        store = make_store(tmp_path / "s.h5", clips, TSP)
        composed = [Clip(unicodedata.normalize("NFC", name), 20, 30), clips[1]]
        path = anet_json(tmp_path / "a.json", composed)
        report = export(store, "actionformer", tmp_path / "out", [path], data_set="activitynet")
        assert report.missing == [] and report.unannotated == 0
        database = json.loads(Path(report.annotations[0]).read_text())["database"]
        # The reader finds the file by the annotation's name.
        assert {f"v_{key}.npy" for key in database} == names(tmp_path / "out")
