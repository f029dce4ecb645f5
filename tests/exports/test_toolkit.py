"""What targets share: captions, classes, subsets and rates, as readers' annotations show them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.builders.annotations import write, write_example
from tests.builders.refusals import refused
from tests.exports import readers
from tests.exports.conftest import ANET, THUMOS, Clip, Export, anet_json, make_foreign, make_store
from tspcli.annotations import read_together
from tspcli.errors import AnnotationError, ExportError
from tspcli.exports.export_plan import PlannedVideo
from tspcli.exports.toolkit import original_rate
from tspcli.sampling import Sampling
from tspcli.store.store_set import SourceVideo

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


def test_captions_with_tabs_quotes_and_newlines(tmp_path: Path, export: Export) -> None:
    """What comes out is one line a caption, which a reader of tables takes apart as before."""
    sentence = 'He says "go",\n\tand\u2028goes'
    captions = {
        c.key: {
            "duration": c.duration_s,
            "timestamps": [[0, 1], [3, 2]],
            "sentences": [sentence, "x"],
        }
        for c in ANET
    }
    store = make_store(tmp_path / "s.h5", ANET, Sampling())
    path = write(tmp_path / "val_1.json", captions)
    report = export(store, "bmt", tmp_path / "out", [path])
    with open(report.annotations[0], newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) == len(ANET)
    assert rows[0]["caption"] == 'He says "go", and goes' and rows[0]["phase"] == "val_1"
    assert [row["idx"] for row in rows] == [str(i) for i in range(len(ANET))]
    assert any("7 captions" in note for note in report.notes)


class TestWritten:
    def test_readers_that_stop_at_bare_videos_do_not_get_them(
        self, tmp_path: Path, export: Export
    ) -> None:
        data = json.loads(anet_json(tmp_path / "a.json", ANET).read_text())
        first, second = list(data["database"])[:2]
        data["database"][first]["annotations"] = []
        data["database"][second]["annotations"] = []
        path = write(tmp_path / "a.json", data)
        store = make_store(tmp_path / "s.h5", ANET, Sampling())
        report = export(store, "gtad-anet", tmp_path / "g", [path])
        infos = json.loads(Path(report.annotations[0]).read_text())
        assert f"v_{first}" not in infos and len(infos) == len(ANET) - 2
        assert any("without a segment" in note for note in report.notes)
        # ActionFormer stops at training videos alone.
        report = export(store, "actionformer", tmp_path / "af", [path])
        database = json.loads(Path(report.annotations[0]).read_text())["database"]
        assert first not in database and second in database

    def test_actionformer_never_loads_actions_beyond_the_features(
        self, tmp_path: Path, export: Export
    ) -> None:
        data = json.loads(anet_json(tmp_path / "a.json", ANET).read_text())
        first = next(iter(data["database"]))
        data["database"][first] |= {
            "duration": 500.0,
            "annotations": [{"segment": [300.0, 400.0], "label": "Zumba"}],
        }
        store = make_store(tmp_path / "s.h5", ANET, Sampling())
        report = export(store, "actionformer", tmp_path / "af", [write(tmp_path / "a.json", data)])
        assert first not in json.loads(Path(report.annotations[0]).read_text())["database"]
        assert any(first in note for note in report.notes)
        assert any("well before the annotated end" in note for note in export(
            store, "opentad", tmp_path / "ot", [tmp_path / "a.json"]).notes)  # fmt: skip

    def test_label_ids(self, tmp_path: Path, export: Export, anet_annotations: Path) -> None:
        store = make_store(tmp_path / "s.h5", ANET, Sampling())

        def ids(out: str, label_ids: Path | None = None) -> dict[str, int]:
            report = export(
                store, "actionformer", tmp_path / out, [anet_annotations], label_ids=label_ids
            )
            database = json.loads(Path(report.annotations[0]).read_text())["database"]
            return {a["label"]: a["label_id"] for v in database.values() for a in v["annotations"]}

        assert ids("1") == {"Archery": 0, "Ballet": 1, "Zumba": 2}
        order = ["Zumba", "Other", "Ballet", "Archery"]
        listed = write(tmp_path / "list.json", order)
        assert ids("2", listed) == {"Archery": 3, "Ballet": 2, "Zumba": 0}
        scores = write(tmp_path / "scores.json", {"class": order, "results": {}})
        assert ids("3", scores) == ids("4", listed)
        with refused(AnnotationError, option="--label-ids", value="Archery"):
            ids("5", write(tmp_path / "short.json", ["Zumba"]))

    def test_thumos_classes_stay_below_their_number(
        self, tmp_path: Path, export: Export, thumos_annotations: list[Path]
    ) -> None:
        """A video of one class alone: its id is 0 and num_classes 1, as the reader asserts."""
        lines = thumos_annotations[0].read_text().splitlines()
        kept = [line for line in lines if "Billiards" not in line or "0000411" in line]
        table = write(tmp_path / "val_Annotation.csv", "\n".join(kept) + "\n")
        store = make_store(tmp_path / "s.h5", THUMOS[:1], Sampling(stride=1))
        report = export(store, "actionformer", tmp_path / "af", [table], missing="skip")
        database = json.loads(Path(report.annotations[0]).read_text())["database"]
        ids = {a["label_id"] for v in database.values() for a in v["annotations"]}
        assert ids == {0}
        config = readers.actionformer_config(tmp_path / "af")
        assert config["dataset"]["num_classes"] == 1

    def test_subsets_that_nobody_tells(self, tmp_path: Path, export: Export) -> None:
        clips = [Clip("v_abc", 9.0, 30.0)]
        store = make_store(tmp_path / "s.h5", clips, Sampling())
        path = write_example(tmp_path, "anet_anno_action.json")
        for target in ("actionformer", "opentad"):
            with refused(AnnotationError, option="--subset", video="abc"):
                export(store, target, tmp_path / target, [path])
        report = export(store, "gtad-anet", tmp_path / "g", [path])
        assert [Path(p).name for p in report.annotations] == ["anet_anno_action.json"]
        assert any("--subset" in note for note in report.notes)
        report = export(store, "gtad-anet", tmp_path / "h", [path], subset="training")
        assert len(report.annotations) == 2

    def test_feature_frame_may_be_kept(self, tmp_path: Path, export: Export) -> None:
        store = make_store(tmp_path / "s.h5", [Clip("v_abc", 9.0, 30.0)], Sampling())
        path = write_example(tmp_path, "anet_anno_action.json")
        report = export(store, "bmn", tmp_path / "k", [path], feature_frame="keep")
        info = json.loads(Path(report.annotations[0]).read_text())["v_abc"]
        assert info["feature_frame"] == 256 and info["duration_frame"] == 270
        report = export(store, "bmn", tmp_path / "f", [path])
        info = json.loads(Path(report.annotations[0]).read_text())["v_abc"]
        assert info["feature_frame"] == pytest.approx(8 * 16 / 15 / 9.0 * 270)


def test_original_rates_of_the_published_table(shared_data: Path) -> None:
    """Every video's rate is a common one and gives all its frames back within one."""
    table = shared_data / "thumos14_val_Annotation.csv"
    rates = {}
    for name, video in read_together([table]).videos.items():
        source = SourceVideo(name, 10, Sampling(stride=1), None, None, None)
        rate = original_rate(PlannedVideo(source, name, name, name, video))
        assert rate is not None
        rates[name] = round(rate, 2)
        for segment in video.segments:
            assert segment.frames is not None
            assert abs(segment.frames[0] - segment.start_s * rate) <= 1.01
            assert abs(segment.frames[1] - segment.end_s * rate) <= 1.01
    assert rates["video_validation_0000311"] == 25 and rates["video_validation_0000411"] == 24
    assert set(rates.values()) == {24, 25, 30}


def test_the_published_activitynet_files_meet(
    shared_data: Path, tmp_path: Path, export: Export
) -> None:
    """BSN's annotations have no subsets; the names of TSP's tables give them."""
    names = ["v_sJFgo9H6zNo", "v_JDg--pjY5gg"]
    store = make_store(
        tmp_path / "s.h5", [Clip(names[0], 138.97, 30), Clip(names[1], 126.13, 30)], Sampling()
    )
    files = ("anet_anno_action.json", "activitynet_v1-3_train_metadata.csv",
             "activitynet_v1-3_valid_metadata.csv")  # fmt: skip
    report = export(
        store, "gtad-anet", tmp_path / "g", [shared_data / f for f in files], missing="skip"
    )
    with open(report.annotations[1], newline="") as file:
        subsets = {row["video"]: row["subset"] for row in csv.DictReader(file)}
    assert subsets == {names[0]: "training", names[1]: "validation"}
    assert len(report.missing) > 14_000


def test_official_thumos_table_becomes_gtads(tmp_path: Path, export: Export) -> None:
    """Frames come from seconds and the video's own rate, numbers from THUMOS14's list."""
    lines = ["video-name,t-start,t-end,action-label,video-duration,filename,fps,video-frames,"
             "temporal-region-label"]  # fmt: skip
    for clip in THUMOS:
        # The table's rate is that of the re-encoded video and must not be taken.
        lines.append(f"{clip.key},0.2,0.9,Shotput,{clip.duration_s},{clip.key}.mp4,30,9,Action")
    table = write(tmp_path / "thumos14_groundtruth.csv", "\n".join(lines) + "\n")
    store = make_store(tmp_path / "s.h5", THUMOS, Sampling(stride=1))
    report = export(store, "gtad-thumos", tmp_path / "out", [table])
    rows = []
    for path in report.annotations:
        with open(path, newline="") as file:
            rows += list(csv.DictReader(file))
    by_name = {row["video"]: row for row in rows}
    for clip in THUMOS:
        row = by_name[clip.key]
        assert row["type_idx"] == "79" and row["endFrame"] == str(int(0.9 * clip.fps))
    assert report.time_errors["frames"].inside_s < 1e-9
    assert any("Ambiguous" in note for note in report.notes)


def test_paths_that_need_quotes(
    tmp_path: Path, export: Export, anet_store: Path, anet_annotations: Path
) -> None:
    """Configurations and commands survive blanks and quotes in a path."""
    import shlex

    folder = tmp_path / "it's, a: folder"
    export(anet_store, "actionformer", folder / "af", [anet_annotations])
    config = readers.actionformer_config(folder / "af")["dataset"]
    assert config["feat_folder"] == str(folder / "af")
    usage = export(anet_store, "bmn", folder / "bmn", [anet_annotations]).usage
    command = shlex.split(usage.split("\n", 1)[1].split("\nThe same")[0])
    assert command[command.index("--feature_path") + 1] == f"{folder / 'bmn'}/"
    values: dict = {}
    export(anet_store, "mmaction2", folder / "mma", [anet_annotations])
    exec((folder / "mma" / "mmaction2_tsp.py").read_text(), values)
    assert values["data_root"] == f"{folder / 'mma' / 'csv'}/"
    assert values["model"] == {"feat_dim": 512, "temporal_dim": 100}
    assert Path(values["ann_file_train"]).is_file() and Path(values["ann_file_val"]).is_file()


@pytest.mark.parametrize("target", ["actionformer", "opentad", "bmn", "gtad-anet", "mmaction2"])
@pytest.mark.parametrize(
    ("annotated_s", "word"),
    [(35.0, "beyond"), (12.0, "beyond"), (60.0, "before"), (40.0, None), (38.5, None)],
)
def test_durations_that_do_not_fit_the_features_are_noted(
    tmp_path: Path, export: Export, target: str, annotated_s: float, word: str | None
) -> None:
    store = make_store(tmp_path / "s.h5", [Clip("v_a", 40.0, 30.0)], TSP)
    path = anet_json(tmp_path / "a.json", [Clip("v_a", annotated_s, 30.0)])
    options = {"length": 192} if target == "actionformer" else {}
    options |= {"data_set": "activitynet"} if target in ("actionformer", "opentad") else {}
    notes = export(store, target, tmp_path / "out", [path], **options).notes
    found = [note for note in notes if "the annotated end" in note]
    assert [word in note for note in found] == ([] if word is None else [True])
    assert all("1 video" in note and "'v_a'" in note for note in found)
