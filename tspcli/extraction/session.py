"""One run from the list of videos to the finished file, whatever is written and wherever it runs.

It plans, locks the output, finds what is done already, has a runner do the rest, assembles, and
reports.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tspcli.core.progress import Reporter
from tspcli.core.run_dir import one_writer
from tspcli.core.text import counted
from tspcli.encoders import Encoder
from tspcli.errors import StoreMismatchError
from tspcli.extraction.batch_encoder import require_memory
from tspcli.extraction.extract_config import ExtractConfig
from tspcli.extraction.run_report import VIDEOS, ExtractReport, VideoResult
from tspcli.extraction.shard_plan import (
    ShardPlan,
    check_out,
    durations_ms,
    file_size,
    longest_first,
    plan_shards,
    shard_path,
    weigh,
)
from tspcli.extraction.supervisor import choose_runner
from tspcli.extraction.task import RunLog, Runner, Task
from tspcli.recipes.feature_recipe import feature_recipe
from tspcli.store.gvf import Pool
from tspcli.store.parts import PartsFolder
from tspcli.store.schema import StoreMetadata
from tspcli.store.store import open_store
from tspcli.video import VideoFile, describe_skipped, find_videos

_SHOWN = 3


class Kept(NamedTuple):
    """A video that an earlier run has done: its rows and the attributes of its dataset."""

    n_rows: int
    attributes: Mapping[str, Any]


class Output(Protocol):
    """The kind of file that a run writes."""

    @property
    def pool(self) -> Pool | None:
        """How the rows of a video become one, or None to keep them."""

    def metadata(self, rows: StoreMetadata) -> StoreMetadata:
        """What the file says of itself, given what its rows are made of."""

    def kept(self, out: Path, metadata: StoreMetadata) -> dict[str, Kept]:
        """The videos of a file that exists, whose settings have to be those given."""

    def assemble(self, parts: PartsFolder, rows: StoreMetadata, *, keep_existing: bool) -> None:
        """Write the file from the parts, and from what it holds already; remove the parts."""


def run_session(
    videos: str | Path | Iterable[str | Path],
    out: Path,
    output: Output,
    *,
    config: ExtractConfig,
    encoder: Encoder | None = None,
    reporter: Reporter | None = None,
) -> ExtractReport:
    """Do all videos that ``out`` lacks, and write it.

    Args:
        videos: Files, folders (searched recursively) or ``.txt`` lists of files.
        out: The file.
        output: What kind of file it is.
        config: The settings.
        encoder: An encoder that is loaded already; otherwise the config's weights are loaded.
        reporter: Watches the run.

    Returns:
        What became of every video; also written to ``<out>.report.json``.
    """
    began_s = time.monotonic()
    reporter = reporter or Reporter()
    inputs = [videos] if isinstance(videos, str | os.PathLike) else list(videos)
    if config.shard is not None:
        out = shard_path(out, config.shard)
    check_out(out)
    listing = find_videos(inputs, key_template=config.key_template)
    files = listing.videos
    plan = None
    if config.shard is not None:
        plan = plan_shards(files, config.shard[1], reporter)
        files = list(plan.shards[config.shard[0] - 1])
    log = RunLog(ExtractReport(str(out), {}, skipped_files=listing.skipped_files), reporter)
    with closing(choose_runner(config, encoder)) as runner:
        info = runner.start(log)
        sampling = config.resolve_sampling(info.sampling)
        require_memory(sampling, info, config.batch_size)
        rows = StoreMetadata.build(sampling=sampling, encoder=info.provenance)
        rows = replace(rows, shard_plan=None if plan is None else plan.digest)
        rows = _naming_recipe(rows, config, log)
        task = Task(out, output.metadata(rows), sampling, config, info, output.pool)
        log.report.settings, log.report.runtime = task.metadata.settings, info.runtime
        if listing.skipped_files:
            log.note(
                f"{describe_skipped(listing.skipped_files)}. A file that is named itself is "
                "always taken."
            )
        if plan is not None and config.shard is not None:
            log.report.shard = plan.facts(config.shard[0])
            if plan.n_unknown:
                log.note(
                    f"{counted(plan.n_unknown, 'video')} of {plan.n_videos} without a duration in "
                    "the header, distributed by file size."
                )
        reporter.message(f"Sampling: {sampling.line()}; {info.frame_spec.line()}.")
        with one_writer(out):
            parts = task.parts()
            todo = _todo(
                files, parts, output, log, listed=listing.videos, overwrite=config.overwrite
            )
            replanned = plan is not None and _was_planned_otherwise(parts, log)
            log.figures.n_videos = len(todo)
            log.figures.total_bytes = sum(file_size(file.path) for file in todo)
            n_kept = len(files) - len(todo)
            kept = f", {n_kept} kept from an earlier run" if n_kept else ""
            reporter.start(VIDEOS, len(todo), about=f"{counted(len(todo), 'video')} to do{kept}")
            if todo:
                runner.run(task, _in_order(todo, plan, runner, reporter), parts, log)
            # A shard is written even if it holds nothing, so that no shard is ever missed.
            if parts.parts or replanned or (plan is not None and not out.exists()):
                output.assemble(parts, rows, keep_existing=not config.overwrite)
            else:
                parts.remove()
                if config.overwrite and out.exists():
                    log.note(f"{out} is unchanged: no video of this run has features.")
            log.report.videos.sort(key=lambda result: result.key)
            log.report.wall_s = time.monotonic() - began_s
            log.report.write()
    return log.report


def _in_order(
    todo: list[VideoFile], plan: ShardPlan | None, runner: Runner, reporter: Reporter
) -> list[VideoFile]:
    """The order in which the videos are begun."""
    if plan is not None and plan.weights:
        return longest_first(todo, plan.weights)
    if runner.is_parallel:
        return longest_first(todo, weigh(todo, durations_ms(todo, reporter)))
    return longest_first(todo)


def require_known(metadata: StoreMetadata, out: Path) -> None:
    """Refuse to add to a file that does not say how it was made.

    Raises:
        StoreMismatchError: If it does not.
    """
    if not metadata.settings:
        raise StoreMismatchError(
            f"{out} does not state how its features were made.",
            remedy="Choose another --out, or --overwrite to replace it.",
            path=str(out),
        )


def _naming_recipe(rows: StoreMetadata, config: ExtractConfig, log: RunLog) -> StoreMetadata:
    """Metadata with the recipe that was followed, and in what it was not."""
    if config.recipe is None:
        return rows
    recipe = feature_recipe(config.recipe)
    deviations = recipe.deviations(rows.settings, rows.weights)
    for deviation in deviations:
        log.note(f"Not as the recipe {recipe.name} has it: {deviation}.")
    label = {"name": recipe.name, "digest": recipe.digest, "deviations": deviations}
    return replace(rows, labels={**rows.labels, "recipe": label})


def _todo(
    files: list[VideoFile],
    parts: PartsFolder,
    output: Output,
    log: RunLog,
    *,
    listed: list[VideoFile],
    overwrite: bool,
) -> list[VideoFile]:
    """Open the parts, report the videos that are done already, and return those that are not.

    Args:
        files: The videos of this run.
        parts: The parts of its output.
        output: What kind of file it writes.
        log: Where to report.
        listed: The videos of all shards.
        overwrite: Whether to do what is done already again.
    """
    kept = {} if overwrite else output.kept(parts.store, parts.metadata)
    parts.open(discard=overwrite)
    for problem in parts.discarded:
        log.note(problem)
    kept.update({part.key: Kept(part.n_rows, part.attributes) for part in parts.parts.values()})
    for file in files:
        if file.key in kept and (change := _change(file, kept[file.key])):
            del kept[file.key]
            log.note(change)
    log.report.videos += [_result(file, kept[file.key]) for file in files if file.key in kept]
    todo = [file for file in files if file.key not in kept]
    others = {key: kept[key] for key in sorted(kept.keys() - {file.key for file in listed})}
    if others:
        _note_others(others, todo, parts.store, log)
    return todo


def _note_others(others: Mapping[str, Kept], todo: list[VideoFile], out: Path, log: RunLog) -> None:
    """Note the videos of the store that this run does not have, and which may have been renamed."""
    names = list(others)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    verb = "is" if len(names) == 1 else "are"
    log.note(
        f"{counted(len(names), 'video')} of {out} {verb} not in --videos: "
        f"{', '.join(names[:_SHOWN])}{more}. `tsp store` renames and removes videos."
    )
    sizes = Counter(kept.attributes.get("source_bytes") for kept in others.values())
    by_size = {
        kept.attributes.get("source_bytes"): key
        for key, kept in others.items()
        if sizes[kept.attributes.get("source_bytes")] == 1
    }
    for file in todo:
        if (old := by_size.get(file_size(file.path) or -1)) is not None:
            log.note(
                f"{file.path} has the size of {old!r}. If it is that video, renamed, `tsp store "
                f"rename {out} {old} {file.key}` keeps its rows."
            )


def _was_planned_otherwise(parts: PartsFolder, log: RunLog) -> bool:
    """Whether a shard's store was made by another plan than this run's."""
    if not parts.store.exists():
        return False
    with open_store(parts.store) as store:
        same = store.metadata.shard_plan == parts.metadata.shard_plan
    if not same:
        log.note(
            f"{parts.store} was planned with other videos or durations. Run the other shards again "
            "too, with the same videos; `tsp merge` compares their plans."
        )
    return not same


def _change(file: VideoFile, kept: Kept) -> str | None:
    """How the file of a video differs from the one that its features were computed from."""
    stored = kept.attributes.get("source_bytes")
    size = file_size(file.path)
    if stored is None or not size or size == stored:
        return None
    return (
        f"{file.path} has {size} bytes now and had {stored} when its features were computed: "
        "they are computed again."
    )


def _result(file: VideoFile, kept: Kept) -> VideoResult:
    return VideoResult(
        file.key,
        str(file.path),
        "kept",
        n_rows=kept.n_rows,
        duration_s=kept.attributes.get("duration_s"),
        decoder=kept.attributes.get("decoder"),
        warnings=tuple(json.loads(kept.attributes.get("warnings", "[]"))),
    )
