"""Names of exported videos."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.features_exports.conftest import ANET, Clip, Export, anet_json, make_store
from tspcli.errors import ExportError, StoreError
from tspcli.timeline import Sampling

TSP = Sampling()


def names(folder: Path, suffix: str = ".npy") -> set[str]:
    return {path.name for path in folder.glob(f"*{suffix}")}


class TestNames:
    BARE = (Clip("AAAAAAAAAAA", 20, 30), Clip("v_BBBBBBBBB", 20, 30))

    def test_the_prefix_is_a_property_of_the_store(self, tmp_path: Path, export: Export) -> None:
        """An ID that begins with v_ among bare IDs still gets its own v_."""
        store = make_store(tmp_path / "bare.h5", self.BARE, TSP)
        export(store, "bmt", tmp_path / "bmt")
        assert names(tmp_path / "bmt", "_rgb.npy") == {
            "v_AAAAAAAAAAA_rgb.npy",
            "v_v_BBBBBBBBB_rgb.npy",
        }

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
        export(store, "actionformer", tmp_path / "af", [anet_annotations])
        assert names(tmp_path / "af") == {f"{c.key}.npy" for c in ANET}
        database = json.loads((tmp_path / "af/annotations/activitynet.json").read_text())
        assert set(database["database"]) == {c.key for c in bare}

    def test_names_that_do_not_meet_the_annotations(
        self, anet_store: Path, export: Export, tmp_path: Path
    ) -> None:
        other = anet_json(tmp_path / "other.json", [Clip("v_ZZZ", 10, 30)])
        with pytest.raises(ExportError, match=r"v_ABCDEF.*ZZZ"):
            export(anet_store, "bmn", tmp_path / "out", [other])

    def test_two_names_become_one(self, tmp_path: Path, export: Export) -> None:
        clips = [Clip("a_x", 20, 30), Clip("a_y", 20, 30)]
        first = make_store(tmp_path / "1.h5", clips[:1], TSP)
        second = make_store(tmp_path / "2.h5", [Clip("v_a_x", 20, 30)], TSP)
        with pytest.raises(ExportError, match=r"'a_x' and 'v_a_x'"):
            export([first, second], "bmn", tmp_path / "out")

    def test_pdvc_reads_thirteen_characters(self, tmp_path: Path, export: Export) -> None:
        clips = [Clip("v_a_long_name_one", 20, 30), Clip("v_another_long", 20, 30)]
        export(make_store(tmp_path / "1.h5", clips, TSP), "pdvc", tmp_path / "out")
        assert names(tmp_path / "out") == {"v_a_long_name.npy", "v_another_lon.npy"}
        clips.append(Clip("v_a_long_name_two", 20, 30))
        with pytest.raises(ExportError, match=r"v_a_long_name_one.*v_a_long_name_two"):
            export(make_store(tmp_path / "2.h5", clips, TSP), "pdvc", tmp_path / "out2")

    def test_gtad_thumos_needs_val_or_test(
        self, anet_store: Path, export: Export, tmp_path: Path
    ) -> None:
        with pytest.raises(ExportError, match=r"'v_ABCDEF-2997' has neither"):
            export(anet_store, "gtad-thumos", tmp_path / "out")
        report = export(anet_store, "gtad-thumos", tmp_path / "out", name_prefix="add:val_")
        assert any("last four characters" in note for note in report.notes)
        with h5py.File(tmp_path / "out" / "rgb_test.h5") as file:
            assert len(file) == 0  # the reader opens it all the same

    @pytest.mark.parametrize("key", ["..", ".hidden", "a\\b", "a\nb", "x" * 300])
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

    def test_a_group_is_named(self, tmp_path: Path, export: Export) -> None:
        path = tmp_path / "nested.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("a/b", data=np.zeros((3, 512), np.float32))
        with pytest.raises(StoreError, match="'a'"):
            export(path, "npy", tmp_path / "out", sampling=TSP)
