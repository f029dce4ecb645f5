from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from tests.builders.annotations import EXAMPLES, TWO_SUBSETS, write_example
from tests.builders.refusals import refused
from tspcli.annotations import AnnotatedVideo, Annotations, Segment, read_actions
from tspcli.annotations.write import write_activitynet
from tspcli.errors import AnnotationError
from tspcli.localization.evaluation import evaluate
from tspcli.localization.results import (
    Prediction,
    ground_truth_table,
    read_results,
    results_table,
    write_results,
)


@pytest.mark.parametrize("name", [name for name in EXAMPLES if EXAMPLES[name][0] != "captions"])
def test_results_are_measured_against_every_dialect(tmp_path: Path, name: str) -> None:
    truth = write_example(tmp_path, name)
    (video,) = read_actions(truth)
    evaluation = evaluate(truth, {video: [Prediction(1.0, 2.5, 0.9, "Archery")]})
    assert evaluation.detection is not None
    assert evaluation.detection.average_map == 1.0


def test_the_official_table_has_the_official_numbers(shared_data: Path) -> None:
    videos = read_actions(shared_data / "activitynet_v1-3_valid_tsp_groundtruth.csv")
    assert len(videos) == 4926
    assert len(videos.labels()) == 200
    assert sum(len(video.segments) for video in videos.values()) == len(ground_truth_table(videos))


def test_missing_results_are_named(tmp_path: Path) -> None:
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
        {"segment": [2.0, 1.0], "score": 1.0, "label": "x"},
        {"segment": [1.0, 2.0, 3.0], "score": 1.0, "label": "x"},
        {"segment": "12", "score": 1.0, "label": "x"},
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
    write_activitynet(truth, TWO_SUBSETS)
    found = {
        "one": [Prediction(1.0, 2.5, 0.9, "run"), Prediction(3.0, 4.0, 0.8, "jump")],
        "elsewhere": [Prediction(0.0, 1.0, 0.5, "run")],
    }
    write_results(results, found)
    evaluation = evaluate(truth, results, subset="validation")
    assert evaluation.detection is not None
    assert evaluation.detection.average_map == 1.0
    assert (evaluation.n_unknown_videos, evaluation.n_silent_videos) == (1, 0)
    both = evaluate(TWO_SUBSETS, found, subset=None, blocked=["elsewhere"])
    assert (both.n_unknown_videos, both.n_silent_videos) == (0, 1)
    assert json.loads(json.dumps(both.to_dict()))["detection"]["n_ground_truth"] == 3
    with pytest.raises(AnnotationError, match=r"'v_one'.*'one'"):
        evaluate(TWO_SUBSETS, {"v_one": found["one"]})


def test_annotated_names_may_begin_with_v(tmp_path: Path) -> None:
    """As a table of file names has them; results always lose it."""
    path = tmp_path / "r.json"
    named = Annotations({f"v_{name}": video for name, video in TWO_SUBSETS.items()})
    found = {
        "v_one": [Prediction(1.0, 2.5, 0.9, "run"), Prediction(3.0, 4.0, 0.8, "jump")],
        "v_three": [Prediction(0.0, 1.0, 0.5, "run")],
    }
    write_results(path, found, proposals=found)
    bare = {name.removeprefix("v_"): items for name, items in found.items()}
    for blocked in ((), ("three",)):
        expected = evaluate(TWO_SUBSETS, bare, blocked=blocked).to_dict()
        for spelling in (blocked, [f"v_{name}" for name in blocked]):
            got = evaluate(named, path, blocked=spelling).to_dict()
            for key in ("detection", "proposals", "n_unknown_videos", "n_silent_videos"):
                assert got[key] == expected[key]
    # Two videos of the annotations whose names differ by it alone are two.
    both = Annotations({"one": TWO_SUBSETS["one"], "v_one": TWO_SUBSETS["three"]})
    assert evaluate(both, {"one": found["v_one"]}).n_silent_videos == 1


def test_proposals_without_labels_have_no_map() -> None:
    evaluation = evaluate(TWO_SUBSETS, {"one": [Prediction(1.0, 2.5, 0.9)]})
    assert evaluation.detection is None
    assert evaluation.proposals.ar_at(100) == pytest.approx(1 / 3)


def test_what_ends_before_it_starts_is_named() -> None:
    good = AnnotatedVideo((Segment(1.0, 1.0, "run"),), 10.0)
    bad = AnnotatedVideo((Segment(1.0, 2.0, "run"), Segment(5.0, 3.0, "jump")), 10.0)
    found = {"fine": [Prediction(1.0, 2.0, 0.5, "run")]}
    evaluate(Annotations({"fine": good}), found)
    with pytest.raises(AnnotationError, match=r"'odd': 'jump' ends at 3 s, before .* at 5 s"):
        evaluate(Annotations({"fine": good, "odd": bad}), found)
    with pytest.raises(AnnotationError, match=r"'fine'.*start_s=2\.0, end_s=1\.0"):
        evaluate(Annotations({"fine": good}), {"fine": [Prediction(2.0, 1.0, 0.5, "run")]})


@pytest.mark.parametrize("segment", [[1.0], [1.0, 2.0, 3.0]])
def test_annotated_segments_have_two_ends(tmp_path: Path, segment: list[float]) -> None:
    path = tmp_path / "a.json"
    item = {"segment": segment, "label": "run"}
    path.write_text(json.dumps({"database": {"odd": {"annotations": [item]}}}))
    with pytest.raises(AnnotationError, match="'odd'"):
        evaluate(path, {"odd": []})
    entry = {"duration": -3, "annotations": [{"segment": [0, 1], "label": "run"}]}
    path.write_text(json.dumps({"database": {"odd": entry}}))
    with pytest.raises(AnnotationError, match="'odd', duration: -3"):
        evaluate(path, {"odd": []})


@pytest.mark.parametrize("name", ["caf\u00e9", "\ud55c\uad6d", "\u30ac\u30e9\u30b9"])
def test_results_in_another_unicode_form_are_of_the_same_video(name: str) -> None:
    composed, decomposed = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    for annotated, predicted in ((composed, decomposed), (decomposed, composed)):
        truth = Annotations({annotated: AnnotatedVideo((Segment(1.0, 4.0, "run"),))})
        found = evaluate(truth, {predicted: [Prediction(1.0, 4.0, 0.9, "run")]})
        assert found.detection is not None and found.detection.average_map == 1.0
        assert found.n_unknown_videos == found.n_silent_videos == 0


@pytest.mark.parametrize(
    "text",
    [
        '{"results": {"a": [], "a": []}}',
        '{"results": {"a": [{"segment": [0, 1], "score": 1, "score": 0.5, "label": "x"}]}}',
        '{"results": {}, "results": {"a": []}}',
    ],
)
def test_results_with_one_key_twice_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(AnnotationError, match="twice"):
        read_results(tmp_path / "r.json")


@pytest.mark.parametrize("name", ["caf\u00e9", "\ud55c\uad6d", "\u30ac\u30e9\u30b9"])
def test_results_with_one_video_in_two_unicode_forms_are_refused(tmp_path: Path, name: str) -> None:
    first, second = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    path, results = tmp_path / "r.json", {first: [], "a": [], f"v_{second}": []}
    with refused(AnnotationError, video=second, value=first):
        write_results(path, results)
    assert not path.exists()
    named = {name.removeprefix("v_"): found for name, found in results.items()}
    path.write_text(json.dumps({"results": named}))
    with refused(AnnotationError, path=path, video=second, value=first):
        read_results(path)
    with refused(AnnotationError, video=second, value=first):
        results_table(named)
