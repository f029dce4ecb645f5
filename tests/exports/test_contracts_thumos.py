"""The readers of THUMOS14, rebuilt, find the right row at the right second."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.exports import readers
from tests.exports.conftest import DIM, THUMOS, TIME, Export
from tests.exports.test_contracts import EXACT, centers, error_of, whole


@pytest.mark.parametrize("flow", ["split", "empty", "zeros"])
def test_gtad_thumos(
    thumos_store: Path,
    thumos_annotations: list[Path],
    export: Export,
    tmp_path: Path,
    flow: str,
) -> None:
    out = tmp_path / "gtad"
    report = export(thumos_store, "gtad-thumos", out, thumos_annotations, flow=flow)
    for number, clip in enumerate(THUMOS):
        rows, assigned = readers.gtad_thumos(str(out), clip.key, clip.fps)
        if flow == "zeros":
            assert (rows[:, :DIM] == 0).all()
            rows = rows[:, DIM:]
            assert "--feat_dim 1024" in report.usage
        else:
            assert "--feat_dim 512" in report.usage
        whole(rows, number)
        assert abs(len(rows) * 5 / clip.fps - clip.duration_s) < 6 / clip.fps
        ends, inside = error_of(rows, assigned, centers(thumos_store, clip.key))
        assert inside < EXACT
        assert ends <= 0.6  # the half clip before the first and after the last centre
    assert report.time_errors["frames"].worst_s < 0.6
    assert report.time_errors["frames"].inside_s < EXACT
    assert "saved." in report.usage and "--override" in report.usage


def test_gtad_thumos_takes_the_rate_of_the_store_without_annotations(
    thumos_store: Path, export: Export, tmp_path: Path
) -> None:
    export(thumos_store, "gtad-thumos", tmp_path / "gtad")
    for clip in THUMOS:
        rows, assigned = readers.gtad_thumos(str(tmp_path / "gtad"), clip.key, clip.fps)
        assert error_of(rows, assigned, centers(thumos_store, clip.key))[1] < EXACT


def test_gtad_thumos_like_the_authors_is_half_a_second_off(
    thumos_store: Path, thumos_annotations: list[Path], export: Export, tmp_path: Path
) -> None:
    out = tmp_path / "gtad"
    report = export(thumos_store, "gtad-thumos", out, thumos_annotations, resize="linear")
    rows, assigned = readers.gtad_thumos(str(out), THUMOS[0].key, 25.0)
    assert rows[0, TIME] - assigned[0] == pytest.approx(8 / 15, abs=0.05)
    assert rows[-1, TIME] - assigned[-1] == pytest.approx(-0.5, abs=0.2)
    assert report.time_errors["frames"].worst_s > 0.4


def test_actionformer_thumos(
    thumos_store: Path, thumos_annotations: list[Path], export: Export, tmp_path: Path
) -> None:
    out = tmp_path / "af"
    export(thumos_store, "actionformer", out, thumos_annotations)
    config = readers.actionformer_config(out)["dataset"]
    assert config["feat_stride"] == 1 and config["file_prefix"] == ""
    database = json.loads(Path(config["json_file"]).read_text())["database"]
    labels = {a["label"] for v in database.values() for a in v["annotations"]}
    ids = {a["label_id"] for v in database.values() for a in v["annotations"]}
    assert "Ambiguous" not in labels
    assert len(labels) == config["num_classes"] and ids == set(range(len(labels)))
    assert {v["subset"] for v in database.values()} == {"Validation", "Test"}
    for number, clip in enumerate(THUMOS):
        rows, assigned = readers.actionformer_thumos(config, clip.key)
        whole(rows, number)
        np.testing.assert_allclose(rows[:, TIME], assigned, atol=EXACT)


def test_opentad_thumos_frames_are_those_of_the_sampling(
    thumos_store: Path, thumos_annotations: list[Path], export: Export, tmp_path: Path
) -> None:
    out = tmp_path / "ot"
    export(thumos_store, "opentad", out, thumos_annotations)
    config = readers.opentad_values(out)
    database = json.loads(Path(config["annotation_path"]).read_text())["database"]
    assert (out / "missing_files.txt").read_text() == ""
    for number, clip in enumerate(THUMOS):
        info = database[clip.key]
        assert info["frame"] == pytest.approx(15 * info["duration"], abs=1e-6)
        rows, assigned = readers.opentad_pad(
            config["data_path"], "", clip.key, 1, 8, info["frame"] / info["duration"], pad=False
        )
        whole(rows, number)
        np.testing.assert_allclose(rows[:, TIME], assigned, atol=EXACT)
        assert info["subset"] == ("training" if "validation" in clip.key else "validation")
