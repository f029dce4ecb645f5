from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tspcli.errors import AnnotationError
from tspcli.localization.annotations import (
    AnnotatedVideo,
    Annotations,
    Segment,
    read_annotations,
    write_activitynet_json,
)
from tspcli.localization.evaluation import evaluate
from tspcli.localization.results import (
    Prediction,
    ground_truth_table,
    read_results,
    write_results,
)

VIDEOS = Annotations(
    {
        "one": AnnotatedVideo(
            (Segment(1.0, 2.5, "run"), Segment(3.0, 4.0, "jump")), 10.0, "validation"
        ),
        "two": AnnotatedVideo((), 20.0, "validation"),
        "three": AnnotatedVideo((Segment(0.0, 5.0, "run"),), 30.0, "training"),
    }
)


def test_activitynet_json_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_activitynet_json(path, VIDEOS)
    assert read_annotations(path) == VIDEOS
    assert list(read_annotations(path, "training")) == ["three"]
    assert VIDEOS.labels() == ["jump", "run"]
    with pytest.raises(AnnotationError, match=r"'test'.*training, validation"):
        read_annotations(path, "test")


def test_names_meet_with_and_without_prefix() -> None:
    named = Annotations({"abc": VIDEOS["one"], "v_xyz": VIDEOS["two"], "v_v_q": VIDEOS["two"]})
    assert named.find("v_abc") == "abc"
    assert named.find("xyz") == "v_xyz"
    assert named.find("v_q") == "v_v_q"
    assert named.find("other") is None


def test_a_ground_truth_table_is_read_without_its_background(tmp_path: Path) -> None:
    path = tmp_path / "valid.csv"
    path.write_text(
        "video-name,t-start,t-end,action-label,video-duration,filename,fps,video-frames,"
        "temporal-region-label\n"
        "one,1.0,2.5,run,10.0,v_one.mp4,30.0,300,Action\n"
        "one,2.5,10.0,,10.0,v_one.mp4,30.0,300,No action\n"
        "two,0.0,20.0,,20.0,v_two.mp4,30.0,600,No action\n"
    )
    videos = read_annotations(path, "validation")
    assert videos["one"] == AnnotatedVideo((Segment(1.0, 2.5, "run"),), 10.0)
    assert videos["two"] == AnnotatedVideo((), 20.0)


def test_the_official_table_has_the_official_numbers(shared_data: Path) -> None:
    videos = read_annotations(shared_data / "activitynet_v1-3_valid_tsp_groundtruth.csv")
    assert len(videos) == 4926
    assert len(videos.labels()) == 200
    assert sum(len(video.segments) for video in videos.values()) == len(ground_truth_table(videos))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "no 'database'"),
        ('{"database": {"a": 3}}', "'a'"),
        ('{"database": {"a": {"annotations": [{"segment": [1]}]}}}', "no annotation"),
        (
            '{"database": {"a": {"annotations": [{"segment": [1, "x"], "label": "r"}]}}}',
            "'x' is no time",
        ),
        ('{"database": {"a": {"duration": NaN}}}', "nan is no time"),
    ],
)
def test_damaged_annotations_are_named(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(AnnotationError, match=said):
        read_annotations(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b\n1,2\n", "lacks the columns video-name"),
        (
            "video-name,t-start,t-end,action-label,video-duration\none,x,2,run,10\n",
            "line 2: 'x' is no time",
        ),
        (
            "video-name,t-start,t-end,action-label,video-duration\n,1,2,run,10\n",
            "line 2: video-name is empty",
        ),
    ],
)
def test_damaged_tables_are_named(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(AnnotationError, match=said):
        read_annotations(path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    for name in ("none.csv", "none.json"):
        with pytest.raises(AnnotationError, match=name):
            read_annotations(tmp_path / name)
    with pytest.raises(AnnotationError, match="none"):
        read_results(tmp_path / "none.json")


def test_results_come_back(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_results(
        path,
        {
            "v_one": [Prediction(1.0, 2.0, 0.5, "run"), Prediction(2.0, 3.5, 0.25, "jump")],
            "two": [Prediction(0.0, 1.0, 1.0)],
            "three": [],
        },
    )
    stored = json.loads(path.read_text())
    assert set(stored) == {"version", "results", "external_data"}
    assert stored["results"]["one"][0] == {"segment": [1.0, 2.0], "score": 0.5, "label": "run"}
    assert stored["results"]["two"] == [{"segment": [0.0, 1.0], "score": 1.0}]
    assert stored["results"]["three"] == []
    table = read_results(path)
    assert table.videos == ("one", "two")
    assert table.labels == ("run", "jump")
    np.testing.assert_array_equal(table.video, [0, 0, 1])
    np.testing.assert_array_equal(table.label, [0, 1, -1])
    np.testing.assert_array_equal(table.end_s, [2.0, 3.5, 1.0])
    np.testing.assert_array_equal(read_results(path, blocked=["one"]).score, [1.0])


def test_two_videos_cannot_share_a_name(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="one name"):
        write_results(tmp_path / "r.json", {"v_one": [], "one": []})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "item",
    [
        {"segment": [1.0], "score": 1.0, "label": "x"},
        {"segment": [1.0, 2.0], "label": "x"},
        {"segment": [1.0, 2.0], "score": None, "label": "x"},
        {"segment": [1.0, 2.0], "score": float("nan"), "label": "x"},
        {"segment": [1.0, float("inf")], "score": 1.0, "label": "x"},
        {"segment": [1.0, 2.0], "score": "high", "label": "x"},
        {"segment": [1.0, 2.0], "score": 1.0, "label": 7},
        {"segment": [1.0, 2.0], "score": 1.0, "label": ["x"]},
        "segment",
    ],
)
def test_a_damaged_prediction_is_named(tmp_path: Path, item: object) -> None:
    good = {"segment": [1.0, 2.0], "score": 1.0, "label": "x"}
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"results": {"fine": [good], "broken": [good, item]}}))
    with pytest.raises(AnnotationError, match="'broken'"):
        read_results(path)


def test_results_that_are_no_lists_are_named(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text('{"results": {"a": 5}}')
    with pytest.raises(AnnotationError, match="'a': 5"):
        read_results(path)
    path.write_text('{"a": []}')
    with pytest.raises(AnnotationError, match="no 'results'"):
        read_results(path)


def test_whole_scores_and_numbers_in_quotes_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text('{"results": {"a": [{"segment": ["1", 2], "score": 1}]}}')
    table = read_results(path)
    assert table.start_s.tolist() == [1.0]
    assert table.score.tolist() == [1]


def test_evaluate_reads_files_and_leaves_out_the_blocked(tmp_path: Path) -> None:
    truth, results = tmp_path / "a.json", tmp_path / "r.json"
    write_activitynet_json(truth, VIDEOS)
    found = {
        "one": [Prediction(1.0, 2.5, 0.9, "run"), Prediction(3.0, 4.0, 0.8, "jump")],
        "elsewhere": [Prediction(0.0, 1.0, 0.5, "run")],
    }
    write_results(results, found)
    evaluation = evaluate(truth, results, subset="validation")
    assert evaluation.detection is not None
    assert evaluation.detection.average_map == 1.0
    assert (evaluation.n_unknown_videos, evaluation.n_silent_videos) == (1, 0)
    both = evaluate(VIDEOS, found, subset=None, blocked=["elsewhere"])
    assert (both.n_unknown_videos, both.n_silent_videos) == (0, 1)
    assert json.loads(json.dumps(both.to_dict()))["detection"]["n_ground_truth"] == 3
    with pytest.raises(AnnotationError, match=r"'v_one'.*'one'"):
        evaluate(VIDEOS, {"v_one": found["one"]})


def test_proposals_without_labels_have_no_map() -> None:
    evaluation = evaluate(VIDEOS, {"one": [Prediction(1.0, 2.5, 0.9)]})
    assert evaluation.detection is None
    assert evaluation.proposals.ar_at(100) == pytest.approx(1 / 3)
