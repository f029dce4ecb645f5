"""What ``tsp localize`` refuses before it begins: files at risk, options that contradict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tspcli.cli.rules import require_apart
from tspcli.errors import UsageError


def check_training(
    features: tuple[Path, ...],
    annotations: Path,
    valid_annotations: Path | None,
    valid_subset: str | None,
    out: Path,
) -> None:
    """Refuse a validation subset of nothing, and inputs that the run's files would replace."""
    from tspcli.localization.training import FILES

    if valid_subset is not None and valid_annotations is None:
        raise UsageError(
            f"--valid-subset {valid_subset} says nothing without --valid-annotations.",
            remedy="Give --valid-annotations; the file may be that of --annotations.",
        )
    inputs = [("--features", path) for path in features] + [("--annotations", annotations)]
    if valid_annotations is not None:
        inputs.append(("--valid-annotations", valid_annotations))
    require_apart([("--out", out / name) for name in FILES], inputs)


def check_sources(
    *,
    features: tuple[Path, ...],
    videos: tuple[str, ...],
    classes: str,
    weights: str | None,
    annotations: Path | None,
    subset: str | None,
    features_out: Path | None,
    times: Mapping[str, Any],
) -> None:
    """Refuse options of ``predict`` that would say nothing, or something else than a store."""
    if bool(features) == bool(videos):
        raise UsageError("Give either --features or --videos.", remedy="One of them is needed.")
    useless = []
    if subset is not None and annotations is None:
        useless.append((f"--subset {subset}", "without --annotations, which tell subsets"))
    if videos:
        if subset is not None:
            useless.append((f"--subset {subset}", "with --videos: all of them are predicted in"))
        for name, value in times.items():
            useless.append((_option(name, value), "with --videos: their features tell it"))
    else:
        if features_out is not None:
            useless.append((f"--features-out {features_out}", "with --features: none are made"))
        if weights is not None and classes != "action-head":
            useless.append(
                (f"--weights {weights}", "with --features and labels from the run's class head")
            )
    if useless:
        option, reason = useless[0]
        raise UsageError(f"{option} says nothing {reason}.", remedy="Leave it out.")
    check_times(features, times)


def check_times(features: tuple[Path, ...], times: Mapping[str, Any]) -> None:
    """Refuse times of rows that contradict what a store tells itself."""
    from tspcli.store.store import open_store

    if not times:
        return
    for path in features:
        with open_store(path) as store:
            told = store.own_sampling
        for name, value in times.items():
            # Datasets alone hold their rate as a floating-point number.
            if told is not None and float(getattr(told, name)) != float(value):
                raise UsageError(
                    f"{_option(name, value)} contradicts {path}, which says {getattr(told, name)}.",
                    remedy="Leave it out: it is for files that do not tell.",
                )


def _option(name: str, value: Any) -> str:
    return f"--{name.replace('_', '-')} {value}"


def check_files(
    *,
    run: Path,
    features: tuple[Path, ...],
    videos: tuple[str, ...],
    weights: str | None,
    annotations: Path | None,
    out: Path,
    store: Path | None,
) -> None:
    """Refuse outputs of ``predict`` that are one of its inputs, or one another.

    The proposals lie beside the results ``out``; ``store`` is for the features of ``videos``.
    """
    from tspcli.localization.results import proposals_path
    from tspcli.localization.training import FILES

    inputs = [("--run", run)] + [("--run", run / name) for name in FILES if run.is_dir()]
    inputs += [("--features", path) for path in features]
    if weights is not None:
        inputs.append(("--weights", Path(weights)))
    if annotations is not None:
        inputs.append(("--annotations", annotations))
    outputs = [("--out", out), ("the proposals beside --out", proposals_path(out))]
    if store is not None:
        from tspcli.core.run_dir import report_path
        from tspcli.video.inputs import list_videos

        inputs += [("--videos", Path(path)) for path in videos]
        inputs += [("--videos", video.path) for video in list_videos(videos)]
        outputs += [
            ("--features-out", store),
            ("the report beside --features-out", report_path(store)),
        ]
    require_apart(outputs, inputs)
