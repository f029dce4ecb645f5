"""``tsp localize``.

What the options of ``tsp localize`` mean to its library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tspcli.annotations.dialects import DATA_SETS
from tspcli.cli.console import print_json, say
from tspcli.cli.displays import show_evaluation, watch
from tspcli.cli.localize_checks import check_files, check_sources, check_times, check_training
from tspcli.cli.localize_videos import action_head, extract_videos
from tspcli.cli.main import EXIT_SOME_FAILED
from tspcli.cli.options import (
    PATH,
    POSITIVE,
    TableChoice,
    device_option,
    json_option,
    row_time_options,
    videos_option,
)
from tspcli.core.text import counted

if TYPE_CHECKING:
    from tspcli.annotations import Annotations
    from tspcli.annotations.dialects import Role
    from tspcli.localization.localize_config import TrainConfig
    from tspcli.sampling import Sampling


_annotations_option = click.option(
    "--annotations",
    "-a",
    required=True,
    type=PATH,
    help="In any known dialect: ActivityNet's JSON, BSN's, a table (.csv) of actions, THUMOS14's "
    "folder of class files.",
)


@click.group("localize", short_help="Find actions in videos, and measure how well.")
def command() -> None:
    """Temporal action localization on stored features: a boundary-matching network.

    \b
    Example:
      tsp localize train --features feats.h5 --annotations anet.json --out RUN
      tsp localize predict --run RUN --videos new/ --out found.json --plot pictures/
      tsp localize evaluate --results found.json --annotations anet.json
    """


@command.command("train", short_help="Train on a feature store.")
@click.option(
    "--features", "-f", multiple=True, required=True, type=PATH, help="A store; may be repeated."
)
@_annotations_option
@click.option("--out", "-o", required=True, type=PATH, help="The run's folder.")
@click.option(
    "--subset", help="Train on this one, if the annotations tell subsets.  [default: training]"
)
@click.option(
    "--valid-annotations", type=PATH, help="Choose the epoch on these; the file may be the same."
)
@click.option("--valid-subset", help="Likewise of these.  [default: validation]")
@click.option("--temporal-scale", type=POSITIVE, help="Cells a video.  [default: 100]")
@click.option("--max-duration", type=POSITIVE, help="Longest proposal in cells.  [default: all]")
@click.option("--window-s", type=float, help="Cut long videos into windows of so many seconds.")
@click.option(
    "--channels",
    type=POSITIVE,
    help="Width of the base convolution; the others follow.  [default: 256]",
)
@click.option(
    "--classes",
    type=click.Choice(["segment", "video", "none"]),
    help="What the class head looks at.  [default: segment]",
)
@click.option("--epochs", type=POSITIVE, help="[default: 9]")
@click.option(
    "--drop-epoch", type=POSITIVE, help="A tenth of the rate after this one.  [default: 7]"
)
@click.option("--batch-size", type=POSITIVE, help="[default: 16]")
@click.option("--learning-rate", type=float, help="[default: 0.001]")
@click.option("--seed", type=int, help="[default: 0]")
@device_option()
@row_time_options
@click.option("--overwrite", is_flag=True, help="Start over instead of going on.")
@json_option()
def train_command(
    features: tuple[Path, ...],
    annotations: Path,
    out: Path,
    subset: str | None,
    valid_annotations: Path | None,
    valid_subset: str | None,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a boundary-matching network and a class head on stored features.

    A run that was stopped goes on when the same command is given again.

    \b
    Example:
      tsp localize train --features train.h5 --features valid.h5 \\
          --annotations activity_net.v1-3.min.json \\
          --valid-annotations activity_net.v1-3.min.json --out RUN
    """
    from tspcli.localization.training import train

    check_training(features, annotations, valid_annotations, valid_subset, out)
    times = row_times(options)
    check_times(features, times)
    sampling = row_sampling(times)
    config = train_config(options)
    learned = _read(annotations, subset, "training")
    valid = None
    if valid_annotations is not None:
        valid = _read(valid_annotations, valid_subset, "validation")
    with watch() as reporter:
        report = train(
            features,
            learned,
            out,
            config=config,
            valid=valid,
            sampling=sampling,
            overwrite=overwrite,
            reporter=reporter,
        )
    if as_json:
        print_json(report.to_dict())
    say(f"{out}: epoch {report.best_epoch} of {len(report.history)} is the network to use.")


@command.command("predict", short_help="Find actions in videos or in a store.")
@click.option("--run", "-r", required=True, type=PATH, help="The run's folder, or a checkpoint.")
@click.option("--features", "-f", multiple=True, type=PATH, help="A store; may be repeated.")
@videos_option(text="Videos instead of a store; may be repeated.")
@click.option("--out", "-o", required=True, type=PATH, help="The results JSON.")
@click.option(
    "--classes",
    type=click.Choice(["run", "action-head"]),
    default="run",
    show_default=True,
    help="Labels from the run's class head, or from the encoder's own.",
)
@click.option(
    "--weights",
    "-w",
    help="The encoder, for videos or its action head.  [default: the one that the run knows]",
)
@click.option("--annotations", "-a", type=PATH, help="Drawn above the predictions.")
@click.option(
    "--subset", help="Of the stores' videos, only those of this annotated subset.  [default: all]"
)
@click.option("--plot", type=PATH, metavar="DIR", help="Draw a timeline of each video.")
@click.option(
    "--features-out",
    type=PATH,
    help="Where the videos' features go.  [default: beside the results, .h5]",
)
@click.option("--max-proposals", type=POSITIVE, help="A video.  [default: 100]")
@click.option("--top-classes", type=POSITIVE, help="Labels a proposal.  [default: 2]")
@click.option("--batch-size", type=POSITIVE, help="Videos.  [default: 16]")
@device_option()
@row_time_options
@json_option("a summary")
def predict_command(
    run: Path,
    features: tuple[Path, ...],
    videos: tuple[str, ...],
    out: Path,
    classes: str,
    weights: str | None,
    annotations: Path | None,
    subset: str | None,
    plot: Path | None,
    features_out: Path | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Write where the actions are, in ActivityNet's format, best first.

    Proposals without labels, each once with its own score, go to a file of the same format beside
    it: OUT.proposals.json.

    Exit code 3: finished, but some videos could not be decoded.

    \b
    Examples:
      tsp localize predict --run RUN --videos my_video.mp4 --out found.json --plot pictures/
      tsp localize predict --run RUN --features valid.h5 --out valid.json
    """
    from tspcli.errors import UsageError
    from tspcli.localization.localize_config import PredictConfig
    from tspcli.localization.localizer import load_localizer
    from tspcli.localization.prediction import predict
    from tspcli.localization.results import Prediction, proposals_path, write_results
    from tspcli.localization.timeline_picture import save_timeline

    times = row_times(options)
    check_sources(
        features=features,
        videos=videos,
        classes=classes,
        weights=weights,
        annotations=annotations,
        subset=subset,
        features_out=features_out,
        times=times,
    )
    store = (features_out or out.with_suffix(".h5")) if videos else None
    check_files(
        run=run,
        features=features,
        videos=videos,
        weights=weights,
        annotations=annotations,
        out=out,
        store=store,
    )
    sampling = row_sampling(times)
    device = options["device"]
    localizer = load_localizer(run)
    if classes == "run" and localizer.class_head is None and options["top_classes"] is not None:
        raise UsageError(
            f"--top-classes {options['top_classes']} says nothing: the run has no class head.",
            remedy="Leave it out, or take labels from the encoder: --classes action-head.",
        )
    known = None if annotations is None else _read(annotations, subset, None)
    classifier, encoder = None, None
    if classes == "action-head":
        classifier, encoder = action_head(localizer, weights, device)
    failed: list[str] = []
    keys: list[str] | None
    if store is not None:
        failed, keys = extract_videos(videos, store, localizer, weights, device, encoder)
        features = (store,)
    else:
        keys = None if subset is None or known is None else _keys_of(features, known, subset)
    names = {} if known is None or plot is None else _names_in(features, known)
    chosen = {name: value for name, value in options.items() if value is not None}
    found: dict[str, list[Prediction]] = {}
    proposals: dict[str, Sequence[Prediction]] = {}
    for video in predict(
        localizer,
        features,
        config=PredictConfig(**chosen),
        classifier=classifier,
        keys=keys,
        annotations=known,
        sampling=sampling,
    ):
        found[video.key] = video.predictions
        proposals[video.key] = video.proposals
        if plot is not None:
            name = names.get(video.key)
            truth = None if known is None or name is None else known[name].segments
            save_timeline(plot / f"{video.key}.png", video, truth)
    write_results(out, found, proposals=proposals)
    n_predictions = sum(len(items) for items in found.values())
    if as_json:
        summary = {"out": str(out), "n_videos": len(found), "n_predictions": n_predictions}
        print_json({**summary, "proposals": str(proposals_path(out)), "failed": failed})
    say(f"{out}: {counted(n_predictions, 'prediction')} in {counted(len(found), 'video')}.")
    n_proposals = sum(len(items) for items in proposals.values())
    say(f"{proposals_path(out)}: {n_proposals} proposals, each once, for AR and AUC.")
    return EXIT_SOME_FAILED if failed else 0


@command.command("evaluate", short_help="Measure results: mAP, AR@AN, AUC.")
@click.option("--results", "-r", required=True, type=PATH, help="A results JSON.")
@click.option(
    "--proposals",
    type=PATH,
    help="For AR and AUC: each proposal once, in a results JSON.  [default: the one that the "
    "results name, else the results]",
)
@_annotations_option
@click.option(
    "--subset", help="Evaluate on this one, if the annotations tell subsets.  [default: validation]"
)
@click.option(
    "--protocol",
    type=TableChoice(DATA_SETS),
    default="activitynet",
    show_default=True,
    help="mAP at tIoU 0.5 to 0.95, or at 0.3 to 0.7.",
)
@click.option(
    "--max-proposals",
    type=click.FloatRange(min=0, min_open=True),
    default=100.0,
    show_default=True,
    help="The largest average number of proposals a video.",
)
@click.option("--blocked", type=PATH, help="Names of videos to leave out, one a line.")
@json_option("all figures")
def evaluate_command(
    results: Path,
    proposals: Path | None,
    annotations: Path,
    subset: str | None,
    protocol: str,
    max_proposals: float,
    blocked: Path | None,
    as_json: bool,
) -> None:
    """Measure results by the ActivityNet protocol, as its official evaluation code does.

    \b
    Example:
      tsp localize evaluate --results found.json --annotations activity_net.v1-3.min.json
    """
    from tspcli.localization.evaluation import evaluate

    evaluation = evaluate(
        _read(annotations, subset, "validation"),
        results,
        proposals=proposals,
        tious=DATA_SETS[protocol].tious,
        max_average_proposals=max_proposals,
        blocked=() if blocked is None else _lines(blocked),
    )
    if as_json:
        print_json(evaluation.to_dict())
    else:
        show_evaluation(evaluation)
    if evaluation.detection is not None:
        say(f"mAP is of {evaluation.detection_source}.")
    say(f"AR and AUC are of {evaluation.proposals_source}.")
    for count, what in (
        (
            evaluation.n_relabelled,
            "of their rows are a segment once more, with another label; AR and AUC count each as a "
            "proposal of its own and come out lower. --proposals takes each once",
        ),
        (evaluation.n_unknown_videos, "videos with predictions have no annotated action"),
        (evaluation.n_silent_videos, "annotated videos have no prediction"),
    ):
        if count:
            say(f"note: {count} {what}.")
    if evaluation.detection is not None and evaluation.detection.n_unknown_label:
        count = evaluation.detection.n_unknown_label
        say(f"note: {count} predictions have a label that is not annotated; mAP ignores them.")


def _read(path: Path, subset: str | None, role: Role | None) -> Annotations:
    from tspcli.annotations import AMBIGUOUS, read_actions

    found = read_actions(path, subset, role=role)
    if count := found.skipped[AMBIGUOUS]:
        say(f"note: {count} stretches of {path} are marked as ambiguous and left out.")
    return found


def _keys_of(features: tuple[Path, ...], annotations: Annotations, subset: str) -> list[str]:
    """The videos of the stores that belong to the subset."""
    from tspcli.errors import LocalizationError

    names = _names_in(features, annotations)
    if not names:
        raise LocalizationError(
            f"None of the videos with features belongs to the subset {subset!r}, which has "
            f"{next(iter(annotations))!r}.",
            remedy="Give another --subset, or the store of its videos.",
        )
    return sorted(names)


def _names_in(features: tuple[Path, ...], annotations: Annotations) -> dict[str, str]:
    """The names under which videos of the stores are annotated, by their keys."""
    from tspcli.localization.feature_windows import open_features

    with open_features(features) as opened:
        return annotations.pair(list(opened))


def _lines(path: Path) -> list[str]:
    from tspcli.errors import AnnotationError

    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [line.strip() for line in lines if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(
            f"The blocked videos {path} cannot be read: {error}.", remedy="Check the path."
        ) from error


def train_config(options: Mapping[str, Any]) -> TrainConfig:
    """The settings of a training; what was not given keeps its default."""
    from tspcli.localization.localize_config import BmnConfig, ClassConfig, TrainConfig

    given = {name: value for name, value in options.items() if value is not None}
    model: dict[str, int] = {
        k: given.pop(k) for k in ("temporal_scale", "max_duration") if k in given
    }
    channels = given.pop("channels", None)
    if channels is not None:
        model.update(BmnConfig.widths(channels))
    classes = {"source": given.pop("classes")} if "classes" in given else {}
    return TrainConfig(model=BmnConfig(**model), classes=ClassConfig(**classes), **given)


def row_times(options: dict[str, Any]) -> dict[str, Any]:
    """Take what was given of the rows' times out of the options."""
    from tspcli.sampling.spec import as_rate

    given = {k: options.pop(k) for k in ("stride", "frame_rate", "clip_length")}
    given = {name: value for name, value in given.items() if value is not None}
    if "frame_rate" in given:
        given["frame_rate"] = as_rate(given["frame_rate"], "frame rate")
    return given


def row_sampling(times: Mapping[str, Any]) -> Sampling | None:
    """Where rows lie in time, for stores that do not tell; None if nothing was given."""
    from tspcli.sampling import Sampling

    return Sampling(**times) if times else None
