"""``tsp localize``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from tspcli.annotations.dialects import DATA_SETS, data_set_of
from tspcli.cli.console import print_json, say, warn
from tspcli.cli.displays import show_evaluation, watch
from tspcli.cli.localize_encoder import action_head, extract_videos
from tspcli.cli.main import EXIT_SOME_FAILED
from tspcli.cli.options import (
    PATH,
    POSITIVE,
    TableChoice,
    column_option,
    json_option,
    row_time_options,
    row_times,
    setting_options,
    videos_option,
)
from tspcli.cli.rules import Named, RuledCommand, require_apart, ruled_option
from tspcli.core.text import counted
from tspcli.localization.localize_config import (
    BmnConfig,
    ClassConfig,
    ClassSource,
    PredictConfig,
    TrainConfig,
)

if TYPE_CHECKING:
    from tspcli.annotations import Annotations, Segment
    from tspcli.annotations.dialects import Role
    from tspcli.sampling import Sampling


_annotations_option = click.option(
    "--annotations", "-a", required=True, type=PATH, help="Annotations in any known dialect."
)


@click.group("localize", short_help="Find actions in videos, and evaluate the results.")
def command() -> None:
    """Temporal action localization on stored features: a boundary-matching network.

    \b
    Example:
      tsp localize train --features feats.h5 --annotations anet.json --out RUN
      tsp localize predict --run RUN --videos new/ --out found.json --plot pictures/
      tsp localize evaluate --results found.json --annotations anet.json
    """


@command.command("train", cls=RuledCommand, short_help="Train on a feature store.")
@click.option(
    "--features", "-f", multiple=True, required=True, type=PATH, help="A store; may be repeated."
)
@_annotations_option
@click.option("--out", "-o", required=True, type=PATH, help="The run's folder.")
@click.option(
    "--subset", help="Train on this subset, if the annotations have any.  [default: training]"
)
@click.option(
    "--valid-annotations",
    type=PATH,
    help="Choose the best epoch on these annotations; may be the same file.",
)
@column_option()
@ruled_option(
    "--valid-subset",
    requires=["valid_annotations"],
    help="Subset of these annotations.  [default: validation]",
)
@setting_options(BmnConfig, ["temporal_scale", "max_duration"])
@click.option(
    "--channels",
    type=POSITIVE,
    help="Width of the base convolution; the others follow.  [default: 256]",
)
@click.option(
    "--classes",
    type=click.Choice(get_args(ClassSource)),
    help="What the class head looks at.  [default: segment]",
)
@setting_options(
    TrainConfig,
    ["window_s", "epochs", "drop_epoch", "batch_size", "learning_rate", "seed", "device"],
)
@row_time_options()
@click.option("--overwrite", is_flag=True, help="Start over instead of resuming.")
@json_option()
def train_command(
    features: tuple[Path, ...],
    annotations: Path,
    out: Path,
    subset: str | None,
    valid_annotations: Path | None,
    columns: dict[str, str],
    valid_subset: str | None,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a boundary-matching network and a class head on stored features.

    The same command resumes a run that was stopped.

    \b
    Example:
      tsp localize train -f train.h5 -f valid.h5 -a anet.json --valid-annotations anet.json -o RUN
    """
    from tspcli.localization.training import FILES, train

    inputs: Named = [("--features", path) for path in features]
    inputs += [("--annotations", annotations), ("--valid-annotations", valid_annotations)]
    require_apart([("--out", out / name) for name in FILES], inputs)
    sampling = _row_times(options, features)
    config = _train_config(options)
    paths = [annotations, *([valid_annotations] if valid_annotations else [])]
    named = _columns_of(paths, columns)
    learned = _read(annotations, subset, "training", named)
    valid = None
    if valid_annotations is not None:
        valid = _read(valid_annotations, valid_subset, "validation", named, "--valid-subset")
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
    say(f"{out}: the best epoch is {report.best_epoch} of {len(report.history)}.")


@command.command(
    "predict",
    cls=RuledCommand,
    one_of=["features", "videos"],
    short_help="Find actions in videos or in a store.",
)
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
@ruled_option(
    "--weights",
    "-w",
    requires=["videos", "classes=action-head"],
    help="The encoder, for videos or for its action head.  [default: the run's]",
)
@click.option("--annotations", "-a", type=PATH, help="Draw these.  [default: the run's own]")
@column_option(requires=["annotations"])
@ruled_option(
    "--subset",
    requires=["annotations"],
    conflicts=["videos"],
    help="Only the stores' videos of this annotated subset.  [default: all]",
)
@click.option("--plot", type=PATH, metavar="DIR", help="Draw a timeline of each video.")
@ruled_option(
    "--features-out",
    type=PATH,
    requires=["videos"],
    help="Where to write the videos' features.  [default: next to the results, as .h5]",
)
@setting_options(PredictConfig, ["max_proposals", "top_classes", "batch_size", "device"])
@row_time_options(conflicts=["videos"])
@json_option("a summary")
def predict_command(
    run: Path,
    features: tuple[Path, ...],
    videos: tuple[str, ...],
    out: Path,
    classes: str,
    weights: str | None,
    annotations: Path | None,
    columns: dict[str, str],
    subset: str | None,
    plot: Path | None,
    features_out: Path | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Write where the actions are, in ActivityNet's format, best first.

    Proposals without labels, each once with its own score, go to OUT.proposals.json. Exit code 3:
    finished, but some videos could not be decoded.

    \b
    Examples:
      tsp localize predict --run RUN --videos my_video.mp4 --out found.json --plot pictures/
      tsp localize predict --run RUN --features valid.h5 --out valid.json
    """
    from tspcli.core.run_dir import report_path
    from tspcli.errors import UsageError
    from tspcli.localization.localizer import load_localizer
    from tspcli.localization.prediction import predict
    from tspcli.localization.results import Prediction, proposals_path, write_results
    from tspcli.localization.timeline_picture import annotated_actions, save_timeline
    from tspcli.localization.training import FILES
    from tspcli.video.inputs import list_videos

    sampling = _row_times(options, features)
    store = (features_out or out.with_suffix(".h5")) if videos else None
    inputs: Named = [("--run", run), ("--weights", weights), ("--annotations", annotations)]
    inputs += [("--run", run / name) for name in FILES if run.is_dir()]
    inputs += [("--features", path) for path in features]
    outputs: Named = [("--out", out), ("the proposals next to --out", proposals_path(out))]
    if store is not None:
        inputs += [("--videos", path) for path in videos]
        inputs += [("--videos", video.path) for video in list_videos(videos)]
        outputs.append(("--features-out", store))
        outputs.append(("the report next to --features-out", report_path(store)))
    require_apart(outputs, inputs)
    device = options["device"] or PredictConfig.device
    localizer = load_localizer(run)
    if classes == "run" and localizer.class_head is None and options["top_classes"] is not None:
        raise UsageError(
            f"--top-classes {options['top_classes']} has no effect: the run has no class head.",
            remedy="Take labels from the encoder instead: --classes action-head.",
            option="top_classes",
        )
    known = None
    if annotations is not None:
        known = _read(annotations, subset, None, _columns_of([annotations], columns))
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
    truth: dict[str, tuple[Segment, ...]] = {}
    if plot is not None:
        truth = annotated_actions(
            features,
            localizer.origins if known is None else [known],
            lambda problem: warn(f"{problem} The run was trained on it; plots leave it out."),
        )
        if known is None and truth:
            say("Plots show the annotations that the run was trained with.")
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
            save_timeline(plot / f"{video.key}.png", video, truth.get(video.key))
    write_results(out, found, proposals=proposals)
    n_predictions = sum(len(items) for items in found.values())
    if as_json:
        summary = {"out": str(out), "n_videos": len(found), "n_predictions": n_predictions}
        print_json({**summary, "proposals": str(proposals_path(out)), "failed": failed})
    say(f"{out}: {counted(n_predictions, 'prediction')} in {counted(len(found), 'video')}.")
    n_proposals = sum(len(items) for items in proposals.values())
    say(f"{proposals_path(out)}: {counted(n_proposals, 'proposal')}, each once, for AR and AUC.")
    return EXIT_SOME_FAILED if failed else 0


@command.command("evaluate", short_help="Measure results: mAP, AR@AN, AUC.")
@click.option("--results", "-r", required=True, type=PATH, help="A results JSON.")
@click.option(
    "--proposals",
    type=PATH,
    help="A results JSON with each proposal once, for AR and AUC.  [default: the one that the "
    "results name, or the results]",
)
@_annotations_option
@column_option()
@click.option(
    "--subset", help="Evaluate on this subset, if the annotations have any.  [default: validation]"
)
@click.option(
    "--protocol",
    type=TableChoice(DATA_SETS),
    help="Data set whose tIoU thresholds mAP has.  [default: that of the annotations]",
)
@click.option(
    "--max-proposals",
    type=click.FloatRange(min=0, min_open=True),
    default=100.0,
    show_default=True,
    help="The largest average number of proposals per video.",
)
@click.option("--blocked", type=PATH, help="Names of videos to leave out, one per line.")
@json_option("all figures")
def evaluate_command(
    results: Path,
    proposals: Path | None,
    annotations: Path,
    columns: dict[str, str],
    subset: str | None,
    protocol: str | None,
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

    truth = _read(annotations, subset, "validation", _columns_of([annotations], columns))
    data_set = DATA_SETS[protocol] if protocol else data_set_of(truth, truth.dialect)
    evaluation = evaluate(
        truth,
        results,
        proposals=proposals,
        tious=data_set.tious,
        max_average_proposals=max_proposals,
        blocked=blocked or (),
    )
    if as_json:
        print_json(evaluation.to_dict())
    else:
        show_evaluation(evaluation)
        say(f"protocol: {data_set.name}" + " (by the annotations)" * (protocol is None))
    for note in evaluation.notes():
        say(note)


def _columns_of(
    paths: Sequence[Path], columns: Mapping[str, str]
) -> Mapping[Path, Mapping[str, str]]:
    from tspcli.annotations.read import columns_of

    return columns_of(paths, columns)


def _read(
    path: Path,
    subset: str | None,
    role: Role | None,
    columns: Mapping[Path, Mapping[str, str]],
    option: str = "--subset",
) -> Annotations:
    """The actions of a subset, or of the videos that play a part.

    Args:
        path: The file.
        subset: The subset that ``option`` named.
        role: The part, if none was named.
        columns: What :func:`_columns_of` gave.
        option: The option.
    """
    from tspcli.annotations import AMBIGUOUS, read_actions
    from tspcli.errors import AnnotationError

    try:
        found = read_actions(path, subset, role=role, columns=columns.get(path))
    except AnnotationError as error:
        if subset is None and "known" in error.data:
            error.remedy = f"Name the one that is meant: {option} NAME."
        raise
    if count := found.skipped[AMBIGUOUS]:
        warn(f"left out {counted(count, 'segment')} of {path} that are marked as ambiguous.")
    return found


def _keys_of(features: tuple[Path, ...], annotations: Annotations, subset: str) -> list[str]:
    """The videos of the stores that belong to the subset."""
    from tspcli.errors import LocalizationError
    from tspcli.localization.feature_windows import open_features

    with open_features(features) as opened:
        if names := annotations.pair(list(opened)):
            return sorted(names)
    text = f"No video with features is in the subset {subset!r}, as {next(iter(annotations))} is."
    raise LocalizationError(text, option="subset", value=subset)


def _train_config(options: Mapping[str, Any]) -> TrainConfig:
    """The settings of a training; what was not given keeps its default."""
    given = {name: value for name, value in options.items() if value is not None}
    model: dict[str, Any] = {
        k: given.pop(k) for k in ("temporal_scale", "max_duration") if k in given
    }
    if "channels" in given:
        model.update(BmnConfig.widths(given.pop("channels")))
    classes = {"source": given.pop("classes")} if "classes" in given else {}
    return TrainConfig(model=BmnConfig(**model), classes=ClassConfig(**classes), **given)


def _row_times(options: dict[str, Any], features: tuple[Path, ...]) -> Sampling | None:
    """Take what was given of the rows' times out of the options; no store may contradict it."""
    from tspcli.store import open_store
    from tspcli.store.store_set import require_agreement_or_use

    given = row_times(*(options.pop(k) for k in ("frame_rate", "stride", "clip_length")))
    if given is not None:
        with ExitStack() as stack:
            stores = [stack.enter_context(open_store(path)) for path in features]
            require_agreement_or_use(stores, given)
    return given
