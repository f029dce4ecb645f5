"""Proposals are measured once each, whatever labels they get."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.builders.refusals import refused
from tests.localization.planted import plant
from tests.localization.test_commands import tsp
from tests.localization.test_train import CPU, SHORT
from tspcli.annotations import AnnotatedVideo, Annotations, Segment
from tspcli.annotations.write import write_activitynet
from tspcli.errors import AnnotationError
from tspcli.localization.evaluation import GIVEN, evaluate
from tspcli.localization.prediction import predict
from tspcli.localization.results import (
    Prediction,
    proposals_path,
    read_linked_results,
    read_results,
    write_results,
)
from tspcli.localization.training import train

TRUTH = Annotations({"a": AnnotatedVideo((Segment(0.0, 10.0, "x"), Segment(20.0, 30.0, "y")), 40)})
ONCE = {"a": [Prediction(0.0, 10.0, 0.9), Prediction(20.0, 30.0, 0.5)]}
TWICE = {
    "a": [
        Prediction(*item[:3], label)._replace(score=item.score * share)
        for item in ONCE["a"]
        for label, share in (("x", 0.6), ("y", 0.4))
    ]
}


def test_recall_does_not_depend_on_the_number_of_labels(tmp_path: Path) -> None:
    learned = plant(tmp_path / "train.h5", 8, seed=1)
    run = train(tmp_path / "train.h5", learned, tmp_path / "run", config=SHORT).run
    figures = []
    for top in (1, 2, 3):
        config = replace(CPU, top_classes=top)
        found = list(predict(run, tmp_path / "train.h5", config=config))
        for video in found:
            assert len(video.predictions) == top * len(video.proposals)
            assert {item.label for item in video.proposals} == {None}
        path = tmp_path / f"found{top}.json"
        write_results(
            path,
            {video.key: video.predictions for video in found},
            proposals={video.key: video.proposals for video in found},
        )
        evaluation = evaluate(learned, path, max_average_proposals=20)
        figures.append(evaluation.proposals.to_dict())
        assert evaluation.proposals_source == str(tmp_path / f"found{top}.proposals.json")
        assert evaluation.detection_source == str(path)
        assert evaluation.n_relabelled == 0
    assert figures[0] == figures[1] == figures[2]
    assert figures[0]["auc"] > 0.2


def test_results_with_several_labels_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_activitynet(tmp_path / "truth.json", TRUTH)
    write_results(tmp_path / "other.json", TWICE)
    write_results(tmp_path / "once.json", ONCE)
    arguments = ["localize", "evaluate", "--results", tmp_path / "other.json", "--annotations"]
    arguments += [tmp_path / "truth.json", "--max-proposals", "2", "--json"]
    assert tsp(*arguments) == 0
    shown, said = capsys.readouterr()
    counted = json.loads(shown)
    assert counted["n_relabelled"] == 2
    assert "2 rows repeat a segment with another label" in said
    assert f"AR and AUC are of {tmp_path / 'other.json'}." in said
    assert tsp(*arguments, "--proposals", tmp_path / "once.json") == 0
    shown, said = capsys.readouterr()
    assert f"AR and AUC are of {tmp_path / 'once.json'}." in said and "note" not in said
    once = json.loads(shown)
    assert once["detection"] == counted["detection"]
    assert once["proposals"]["average_recall"][-1] == 1.0
    assert counted["proposals"]["average_recall"][-1] == 0.5


def test_the_file_of_proposals_is_a_results_file(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    write_results(path, TWICE, proposals=ONCE)
    stored = json.loads(proposals_path(path).read_text())
    assert stored == {
        "version": "VERSION 1.3",
        "results": {
            "a": [{"segment": [0.0, 10.0], "score": 0.9}, {"segment": [20.0, 30.0], "score": 0.5}]
        },
        "external_data": {},
    }
    assert len(read_results(path)) == 4
    table, linked = read_linked_results(path)
    assert (len(table), linked) == (4, tmp_path / "found.proposals.json")
    assert read_linked_results(proposals_path(path))[1] is None
    given = evaluate(TRUTH, TWICE, proposals=ONCE)
    assert given.proposals_source == GIVEN
    assert given.proposals.to_dict() == evaluate(TRUTH, path).proposals.to_dict()


def test_proposals_of_other_results_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    write_results(path, TWICE, proposals=ONCE)
    write_results(proposals_path(path), {"a": ONCE["a"][:1]})
    with refused(AnnotationError, path=proposals_path(path)):
        evaluate(TRUTH, path)
    proposals_path(path).unlink()
    with refused(AnnotationError, path=proposals_path(path)):
        evaluate(TRUTH, path)
