"""Videos before the first step: into the clip cache, and tried, so that none fails days later."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from tspcli.core.progress import Reporter
from tspcli.core.text import counted
from tspcli.errors import TrainingError, TspError, UsageError, VideoError
from tspcli.pretraining.clip_cache import (
    CacheReport,
    CacheSettings,
    build_cache,
    cache_file,
    check_cache_folder,
    check_space,
)
from tspcli.pretraining.data import RunContext, RunData, RunInputs, load_data
from tspcli.pretraining.distributed import Devices, find_placement
from tspcli.pretraining.training_log import CACHE, READING
from tspcli.pretraining.training_recipe import Execution, Recipe

_MAX_THREADS = 16
_NAMED = 3


def prepare_videos(
    data: RunData,
    context: RunContext,
    left_out: Mapping[str, str] | None = None,
) -> tuple[RunData, CacheReport | None, dict[str, str]]:
    """Fill the clip cache, if there is one, and see that the last clip of every video can be read.

    The processes of the run share the work, and come to the same result.

    Args:
        data: Of the run.
        context: Of the run; its execution names the cache, and says what to do about a video that
            cannot be read.
        left_out: The videos that the run began without, if it is resumed: it leaves out these and
            takes all others, whatever can be read by now.

    Returns:
        The data without the videos that cannot be read; what was cached; these videos and why.

    Raises:
        TrainingError: On all processes, if videos cannot be read and that is not allowed.
    """
    data = data.without(left_out or {})
    report = fill_cache(data, context)
    failed = {} if report is None else dict(report.failed)
    if left_out is None:
        failed |= try_videos(data.without(failed), context)
    with context.devices.failing_together():
        refuse_unreadable(failed, context, began=left_out is not None)
    return data.without(failed), report, {**(left_out or {}), **failed}


def refuse_unreadable(failed: Mapping[str, str], context: RunContext, began: bool = False) -> None:
    """Name all videos that cannot be read, and stop if there are any that may not be left out.

    Raises:
        TrainingError: With the first of them.
    """
    for name, reason in failed.items():
        context.reporter.message(f"{name} cannot be read: {reason}")
    first = "; ".join(f"{name}: {reason}" for name, reason in [*failed.items()][:_NAMED])
    more = "; …" if len(failed) > _NAMED else ""
    if failed and began:
        raise TrainingError(
            f"{counted(len(failed), 'video')} could be read when the run began and no longer can: "
            f"{first}{more}.",
            remedy="Bring them back, or start a new run.",
        )
    if failed and context.execution.on_unreadable == "stop":
        raise TrainingError(
            f"{counted(len(failed), 'video')} cannot be read: {first}{more}.",
            remedy="Repair them, take their rows out of the tables, or do without them: "
            "--on-unreadable skip.",
        )
    if failed:
        context.reporter.message(
            f"Left out: {counted(len(failed), 'video')} (--on-unreadable skip)."
        )


def try_videos(data: RunData, context: RunContext) -> dict[str, str]:
    """Read the last clip that each video can be asked for.

    That finds videos that are cut short and files that are not videos, but no damage in the middle.

    Returns:
        File name to reason, of the videos of all processes.
    """
    last: dict[Path, int] = {}
    for split, plan in data.plans.items():
        for path, start in zip(data.videos[split], plan.last_starts(), strict=True):
            last[path] = max(last.get(path, 0), int(start))
    place = context.devices.placement
    videos = list(last)[place.rank :: place.world_size]

    def problem(path: Path) -> str | None:
        reader = data.reader([path], context.execution)
        try:
            reader.read(0, last[path])
        except VideoError as error:
            return error.detail
        except TspError as error:
            return str(error)
        finally:
            reader.close()
        return None

    failed: dict[str, str] = {}
    threads = max(1, min(_MAX_THREADS, (os.cpu_count() or 1) // max(place.local_size, 1)))
    context.reporter.start(READING, len(videos))
    with ThreadPoolExecutor(threads) as pool:
        for done, (path, reason) in enumerate(zip(videos, pool.map(problem, videos), strict=True)):
            if reason is not None:
                failed[path.name] = reason
            context.reporter.advance(READING, done + 1, path.name)
    found = {name: why for part in context.devices.gather(failed) for name, why in part.items()}
    bad = f"{len(found)} cannot be read" if found else "all can be read"
    context.reporter.message(f"Tried the last clip of {counted(len(last), 'video')}: {bad}.")
    return {path.name: found[path.name] for path in last if path.name in found}


# --- the clip cache -------------------------------------------------------------------------------


def fill_cache(data: RunData, context: RunContext) -> CacheReport | None:
    """Build what is missing of the clip cache; the processes of a run share the work.

    Returns:
        What this process did, with the failures of all; None without a cache.

    Raises:
        TrainingError: If the folder was made with other settings, or its disk is too small.
    """
    execution, devices = context.execution, context.devices
    if not execution.cache:
        return None
    folder = Path(execution.cache)
    settings = data.cache_settings(execution)
    videos = list(dict.fromkeys([*data.videos["train"], *data.videos["valid"]]))
    place = devices.placement
    with devices.failing_together():
        if place.local_rank == 0:
            _check_cache(data, videos, folder, settings, context.reporter)
    with devices.failing_together():
        share = (place.rank, place.world_size)
        report = _build_share(videos, folder, settings, context, share)
    if place.local_size < place.world_size:
        # Machines may have disks of their own: each builds what the others built for themselves.
        share = (place.local_rank, place.local_size)
        report = _build_share(videos, folder, settings, context, share)
    failed = {name: why for part in devices.gather(report.failed) for name, why in part.items()}
    return replace(report, failed=failed)


def _check_cache(
    data: RunData,
    videos: Sequence[Path],
    folder: Path,
    settings: CacheSettings,
    reporter: Reporter,
) -> None:
    check_cache_folder(folder, settings)
    missing_s = data.duration_s(path for path in videos if not cache_file(folder, path).exists())
    if missing_s:
        n_bytes = check_space(folder, settings, missing_s)
        reporter.message(
            f"Clip cache: {missing_s / 3600:.2f} hours of video will take about "
            f"{n_bytes / 1e9:.2f} GB as {settings.codec}."
        )


def _build_share(
    videos: Sequence[Path],
    folder: Path,
    settings: CacheSettings,
    context: RunContext,
    share: tuple[int, int],
) -> CacheReport:
    rank, size = share
    workers = max(1, (os.cpu_count() or 1) // size) if size > 1 else None
    videos = videos[rank::size]
    context.reporter.start(CACHE, len(videos))
    return build_cache(
        videos,
        folder,
        settings,
        workers=workers,
        decoder=context.execution.decoder,
        on_video=lambda name, done, total: context.reporter.advance(CACHE, done, name),
    )


def fill_cache_only(
    videos: Iterable[str | Path],
    train: str | Path,
    valid: str | Path,
    recipe: Recipe,
    execution: Execution,
    *,
    labels: str | Path | None = None,
    reporter: Reporter | None = None,
) -> CacheReport:
    """Fill the clip cache of a run without training, for instance on a machine without a GPU.

    Args:
        videos: Folders of the videos.
        train: Ground-truth table of training.
        valid: Likewise of validation.
        recipe: Of the run; global features are not needed.
        execution: Names the cache.
        labels: Label mapping of the run; the tables have to fit it.
        reporter: Receives the progress.

    Raises:
        UsageError: If no cache is named.
        TrainingError: If a video cannot be decoded and none may be left out; the others are there.
    """
    if not execution.cache:
        raise UsageError("There is no cache to fill.", remedy="Name its folder: --cache DIR.")
    reporter = reporter or Reporter()
    mapping = None if labels is None else Path(labels)
    inputs = RunInputs(tuple(map(Path, videos)), Path(train), Path(valid), mapping)
    recipe = replace(recipe, gvf_pool="none")
    with Devices(find_placement(os.environ), "cpu") as devices:
        context = RunContext(inputs, recipe, execution, devices, reporter)
        report = fill_cache(load_data(inputs, recipe), context)
    assert report is not None
    reporter.message(
        f"{execution.cache}: {counted(report.built, 'video')} written, {report.kept} kept, "
        f"{report.n_bytes / 1e9:.3f} GB, {report.gigabytes_an_hour:.2f} GB per hour of video, "
        f"pixels off by at most {report.max_error} of 255."
    )
    refuse_unreadable(report.failed, context)
    return report
