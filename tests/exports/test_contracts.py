"""Every reader, rebuilt, finds the right row at the right second."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.exports import readers
from tests.exports.conftest import ANET, DIM, ROW, TIME, VIDEO, Clip, Export, anet_json
from tspcli.sampling import Sampling
from tspcli.store import open_store

CLIP_S = 16 / 15
EXACT = 2e-3
"""Seconds; float32 at 745 s is good to 6e-5, a resize of it in torch's float32 to 1e-3."""


def centers(store: Path, key: str) -> np.ndarray:
    with open_store(store) as opened:
        return opened[key].center_s


def error_of(rows: np.ndarray, assigned: np.ndarray, clip_centers: np.ndarray) -> tuple:
    """(Worst, worst away from the ends) distance of rows' own times from the reader's."""
    error = np.abs(rows[:, TIME] - assigned)
    inside = (assigned >= clip_centers[0]) & (assigned <= clip_centers[-1])
    inside &= (rows[:, TIME] > clip_centers[0]) & (rows[:, TIME] < clip_centers[-1] - EXACT)
    return error.max(), error[inside].max(initial=0.0)


def whole(rows: np.ndarray, number: int) -> None:
    """The rows are this video's, and of the width they came with."""
    assert rows.shape[1] == DIM
    np.testing.assert_allclose(rows[:, VIDEO], number, atol=1e-3)
    assert (np.diff(rows[:, ROW]) >= -1e-4).all()


def lost_tail(clip: Clip, store: Path) -> float:
    """Seconds after the last whole clip, which every stride-16 store lacks (or has too many)."""
    return abs(clip.duration_s - (centers(store, clip.key)[-1] + CLIP_S / 2))


@pytest.mark.parametrize("as_file", [True, False])
def test_official(anet_store: Path, export: Export, tmp_path: Path, as_file: bool) -> None:
    out = tmp_path / ("all.h5" if as_file else "folder")
    report = export(anet_store, "official", out)
    path = out if as_file else out / "features.h5"
    for number, clip in enumerate(ANET):
        rows, assigned = readers.official(path, clip.key, 16)
        whole(rows, number)
        assert rows.dtype == np.float32
        np.testing.assert_allclose(rows[:, TIME], assigned, atol=EXACT)
    assert report.time_errors["rows"].worst_s < 1e-9
    # It is a store as well: nothing about it was lost.
    with open_store(path) as again, open_store(anet_store) as store:
        assert again.metadata == store.metadata
        assert again[ANET[0].key].duration_s == ANET[0].duration_s


@pytest.mark.parametrize("as_file", [True, False])
def test_gtad_anet_is_as_good_as_its_own_resize(
    anet_store: Path, anet_annotations: Path, export: Export, tmp_path: Path, as_file: bool
) -> None:
    out = tmp_path / ("anet.hdf5" if as_file else "folder")
    report = export(anet_store, "gtad-anet", out, [anet_annotations])
    path = out if as_file else out / "features.hdf5"
    folder = (tmp_path / "anet.hdf5.export" if as_file else out) / "annotations"
    infos = json.loads((folder / "anet_anno_action.json").read_text())
    worst = 0.0
    for number, clip in enumerate(ANET):
        info = infos[clip.key]
        rows, assigned = readers.gtad_anet(path, info, clip.key)
        whole(rows, number)
        # Labels: exact, because feature_frame says what the rows cover.
        assert error_of(rows, assigned, centers(anet_store, clip.key))[1] < EXACT
        proposals = readers.steps_of(100) * info["duration_second"]
        error = error_of(rows, proposals, centers(anet_store, clip.key))[0]
        assert error <= lost_tail(clip, anet_store) + CLIP_S / 2 + EXACT
        worst = max(worst, error)
    assert report.time_errors["proposals"].worst_s == pytest.approx(worst, abs=EXACT)
    assert "--feat_dim 512" in report.usage


def test_gtad_anet_by_centers_is_exact_for_labels_and_proposals(
    anet_store: Path, anet_annotations: Path, export: Export, tmp_path: Path
) -> None:
    out = tmp_path / "anet.hdf5"
    export(anet_store, "gtad-anet", out, [anet_annotations], length=100, resize="centers")
    folder = tmp_path / "anet.hdf5.export" / "annotations"
    infos = json.loads((folder / "anet_anno_action.json").read_text())
    for number, clip in enumerate(ANET):
        info = infos[clip.key]
        assert info["feature_frame"] == info["duration_frame"]
        rows, assigned = readers.gtad_anet(out, info, clip.key)
        whole(rows, number)
        ends, inside = error_of(rows, assigned, centers(anet_store, clip.key))
        assert inside < EXACT
        assert ends <= lost_tail(clip, anet_store) + CLIP_S / 2 + EXACT


@pytest.mark.parametrize("target", ["bmn", "mmaction2"])
@pytest.mark.parametrize("resize", ["linear", "centers", "bmn-pool", "roi-align"])
def test_bmn_and_mmaction2(
    anet_store: Path,
    anet_annotations: Path,
    export: Export,
    tmp_path: Path,
    target: str,
    resize: str,
) -> None:
    out = tmp_path / "bmn"
    report = export(anet_store, target, out, [anet_annotations], length=100, resize=resize)
    infos = {}
    for path in (out / "annotations").glob("anet_anno_*.json"):
        infos |= json.loads(path.read_text())
    worst = 0.0
    for number, clip in enumerate(ANET):
        info = infos[clip.key]
        if target == "bmn":
            rows, labels = readers.bmn(f"{out}/", info, clip.key)
        else:
            rows, labels = readers.mmaction2(f"{out}/csv", info, clip.key)
        assert rows.shape == (100, DIM)
        there = (rows != 0).any(axis=1)
        if resize != "bmn-pool":
            assert there.all()
        whole(rows[there], number)
        proposals = readers.steps_of(100) * readers.snippet_span(info)
        for assigned in (labels, proposals):
            _, inside = error_of(rows[there], assigned[there], centers(anet_store, clip.key))
            if resize == "centers" or (resize == "linear" and assigned is labels):
                assert inside < EXACT
            else:
                assert inside <= CLIP_S + clip.duration_s / 100
        worst = max(worst, error_of(rows[there], labels[there], centers(anet_store, clip.key))[0])
    assert report.time_errors["labels"].worst_s == pytest.approx(worst, abs=EXACT)


def test_times_are_told_of_the_videos_that_the_reader_loads(
    anet_store: Path, export: Export, tmp_path: Path
) -> None:
    whole = export(anet_store, "bmn", tmp_path / "all", [anet_json(tmp_path / "all.json", ANET)])
    worst = whole.time_errors["labels"]
    others = [clip for clip in ANET if clip.key != worst.video]
    named = anet_json(tmp_path / "others.json", others)
    some = export(anet_store, "bmn", tmp_path / "some", [named])
    assert some.time_errors["labels"].video in {clip.key for clip in others}
    assert some.time_errors["labels"].worst_s < worst.worst_s


def test_bmn_values_survive_the_table(anet_store: Path, export: Export, tmp_path: Path) -> None:
    export(anet_store, "bmn", tmp_path / "bmn")
    info = {"feature_frame": 1, "duration_frame": 1, "duration_second": 1}
    with open_store(anet_store) as store:
        for clip in ANET:
            rows, _ = readers.bmn(f"{tmp_path}/bmn/", info, clip.key)
            expected = readers.interpolate(store[clip.key].rows, 100)
            np.testing.assert_allclose(rows, expected, atol=2e-3)


def test_bmt(anet_store: Path, export: Export, tmp_path: Path) -> None:
    report = export(anet_store, "bmt", tmp_path / "bmt")
    switches = dict(re.findall(r"--(\w+) (\d+)", report.usage))
    assert switches == {
        "d_vid": "1024",
        "feature_timespan_in_fps": "16",
        "fps_at_extraction": "15",
        "pad_video_feats_up_to": "800",
    }
    assert "./tmp" in report.usage
    for number, clip in enumerate(ANET):
        rows = readers.bmt(str(tmp_path / "bmt"), clip.key)
        assert rows.shape[1] == 1024
        assert (rows[:, DIM:] == 0).all()
        rows = rows[:, :DIM]
        whole(rows, number)
        cells = readers.bmt_proposals(rows, 16, 15, 800)
        np.testing.assert_allclose(rows[:, TIME], cells, atol=EXACT)
        spread = readers.bmt_captioning(rows, clip.duration_s)
        assert np.abs(rows[:, TIME] - spread).max() <= lost_tail(clip, anet_store) + EXACT
        # A caption over the middle third gets the rows of the middle third.
        third = clip.duration_s / 3
        crop = readers.bmt_crop(rows, third, 2 * third, clip.duration_s)
        assert (crop[:, TIME] > third - 2 * CLIP_S).all()
        assert (crop[:, TIME] < 2 * third + 2 * CLIP_S).all()


def test_bmt_on_the_grid_of_i3d(anet_store: Path, export: Export, tmp_path: Path) -> None:
    report = export(anet_store, "bmt", tmp_path / "bmt", grid_s=2.56, pad_channels=0)
    assert "--d_vid 512 --feature_timespan_in_fps 64 --fps_at_extraction 25" in report.usage
    assert "--pad_video_feats_up_to 300" in report.usage
    for number, clip in enumerate(ANET):
        rows = readers.bmt(str(tmp_path / "bmt"), clip.key)
        whole(rows, number)
        assert len(rows) == max(1, round(clip.duration_s / 2.56))
        cells = readers.bmt_proposals(rows, 64, 25, 300)
        known = centers(anet_store, clip.key)
        inside = (cells - 1.28 >= known[0]) & (cells + 1.28 <= known[-1])
        np.testing.assert_allclose(rows[inside, TIME], cells[inside], atol=EXACT)
    # With the defaults of BMT's own switches there is nothing to be told but the width.
    assert report.time_errors["proposals"].worst_s < 1.28


@pytest.mark.parametrize("container", ["npy", "hdf5"])
def test_actionformer(
    anet_store: Path, anet_annotations: Path, export: Export, tmp_path: Path, container: str
) -> None:
    out = tmp_path / "af"
    report = export(anet_store, "actionformer", out, [anet_annotations], container=container)
    config = readers.actionformer_config(out)["dataset"]
    assert config["input_dim"] == 512 and config["feat_stride"] == 16
    database = json.loads(Path(config["json_file"]).read_text())["database"]
    for number, clip in enumerate(ANET):
        video = clip.key.removeprefix("v_")
        assert all("label_id" in a for a in database[video]["annotations"])
        rows, assigned = readers.actionformer_anet(config, database, video)
        whole(rows, number)
        ends, inside = error_of(rows, assigned, centers(anet_store, clip.key))
        assert inside < EXACT
        assert ends <= CLIP_S / 2 + EXACT
    assert report.time_errors["steps"].inside_s < EXACT


def test_actionformer_with_rows_of_fixed_length(
    anet_store: Path, anet_annotations: Path, export: Export, tmp_path: Path
) -> None:
    out = tmp_path / "af"
    export(anet_store, "actionformer", out, [anet_annotations], length=192, resize="centers")
    config = readers.actionformer_config(out)["dataset"]
    assert config["feat_stride"] == -1
    database = json.loads(Path(config["json_file"]).read_text())["database"]
    for clip in ANET:
        video = clip.key.removeprefix("v_")
        rows, assigned = readers.actionformer_anet(config, database, video)
        assert error_of(rows, assigned, centers(anet_store, clip.key))[1] < EXACT


def test_opentad(anet_store: Path, tmp_path: Path, export: Export) -> None:
    from tests.exports.conftest import anet_json

    annotations = anet_json(tmp_path / "anet.json", ANET, ["MISSING_ONE", "v_MISSING_2"])
    out = tmp_path / "ot"
    report = export(anet_store, "opentad", out, [annotations])
    config = readers.opentad_values(out)
    database = json.loads(Path(config["annotation_path"]).read_text())["database"]
    missing = Path(config["block_list"]).read_text().splitlines()
    assert missing == ["MISSING_ONE", "v_MISSING_2"]
    assert not set(missing) & set(database)
    classes = Path(config["class_map"]).read_text().splitlines()
    for number, clip in enumerate(ANET):
        video = clip.key.removeprefix("v_")
        assert all(a["label"] in classes for a in database[video]["annotations"])
        duration = float(database[video]["duration"])
        known = centers(anet_store, clip.key)
        for length in (96, 128, 192, 256):
            rows, assigned = readers.opentad_resize(
                config["data_path"], "v_", video, duration, length
            )
            np.testing.assert_allclose(rows[:, VIDEO], number, atol=1e-2)
            tolerance = 0.5  # times above 512 s in half precision
            error = error_of(rows, assigned, known)[0]
            assert error <= lost_tail(clip, anet_store) + CLIP_S / 2 + tolerance
        rows, assigned = readers.opentad_pad(config["data_path"], "v_", video, 16, 8, 15)
        whole(rows, number)
        np.testing.assert_allclose(rows[:, TIME], assigned, atol=EXACT)
    assert report.time_errors["pad"].worst_s < EXACT


def test_opentad_by_centers_is_exact(
    anet_store: Path, anet_annotations: Path, export: Export, tmp_path: Path
) -> None:
    out = tmp_path / "ot"
    report = export(anet_store, "opentad", out, [anet_annotations], length=192, resize="centers")
    for clip in ANET:
        rows, assigned = readers.opentad_resize(
            str(out), "v_", clip.key.removeprefix("v_"), clip.duration_s, 192
        )
        half = np.spacing(np.float16(rows[:, TIME].max())).astype(float)
        assert error_of(rows, assigned, centers(anet_store, clip.key))[1] <= half
    assert report.time_errors["resize"].inside_s < EXACT
    assert "pad" not in report.time_errors


def test_pdvc(anet_store: Path, export: Export, tmp_path: Path) -> None:
    report = export(anet_store, "pdvc", tmp_path / "pdvc")
    worst = 0.0
    for number, clip in enumerate(ANET):
        rows, assigned = readers.pdvc(str(tmp_path / "pdvc"), clip.key, clip.duration_s)
        whole(rows, number)
        error = error_of(rows, assigned, centers(anet_store, clip.key))[0]
        # Its own choice of rows runs from end to end, which stretches the video by D/200 a side.
        assert error <= clip.duration_s / 200 + 2 * CLIP_S
        worst = max(worst, error)
    assert report.time_errors["steps"].worst_s == pytest.approx(worst, abs=EXACT)


def test_pdvc_by_centers_is_exact(anet_store: Path, export: Export, tmp_path: Path) -> None:
    export(anet_store, "pdvc", tmp_path / "pdvc", length=100, resize="centers")
    for clip in ANET:
        rows, assigned = readers.pdvc(str(tmp_path / "pdvc"), clip.key, clip.duration_s)
        assert error_of(rows, assigned, centers(anet_store, clip.key))[1] < EXACT


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"length": 50},
        {"length": 50, "resize": "centers"},
        {"row_rate": 4.0},
        {"row_rate": "original"},
        {"grid_s": 2.0},
    ],
)
def test_npy_table_tells_the_seconds(
    anet_store: Path, export: Export, tmp_path: Path, options: dict
) -> None:
    import csv

    out = tmp_path / "npy"
    report = export(anet_store, "npy", out, **options)
    with open(out / "videos.csv") as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(ANET)
    for line in table:
        rows = np.load(out / line["file"])
        assert len(rows) == int(line["rows"])
        assigned = float(line["first_center_s"]) + np.arange(len(rows)) * float(line["step_s"])
        known = centers(anet_store, line["video"])
        half = 1.0 if "grid_s" in options else 0.0
        inside = (assigned - half >= known[0]) & (assigned + half <= known[-1])
        np.testing.assert_allclose(rows[inside, TIME], assigned[inside], atol=EXACT)
    assert report.time_errors["table"].inside_s < (1.1 if options.get("grid_s") else EXACT)


def test_a_sampling_of_ones_own(tmp_path: Path, export: Export) -> None:
    """Other rate, stride and clip length: the readers are configured for them."""
    from tests.exports.conftest import make_store

    sampling = Sampling(frame_rate=Fraction(10), clip_length=32, stride=8)
    clips = [Clip("v_own", 40.0, 30.0), Clip("v_own.2", 9.0, 25.0)]
    store = make_store(tmp_path / "own.h5", clips, sampling, dim=96)
    export(store, "actionformer", tmp_path / "af")
    config = readers.actionformer_config(tmp_path / "af")["dataset"]
    assert (config["feat_stride"], config["num_frames"]) == (8, 32)
    assert (config["default_fps"], config["input_dim"]) == (10, 96)
    usage = export(store, "bmt", tmp_path / "bmt").usage
    assert "--feature_timespan_in_fps 8 --fps_at_extraction 10" in usage
    report = export(store, "opentad", tmp_path / "ot")
    assert "feature_stride=8, sample_stride=1, offset_frames=16" in report.usage
    assert report.time_errors["pad"].worst_s < EXACT
    report = export(store, "gtad-anet", tmp_path / "g.h5", length=100, resize="centers")
    assert report.time_errors["proposals"].inside_s < EXACT
