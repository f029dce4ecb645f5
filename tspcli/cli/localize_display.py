"""How ``tsp localize`` shows its training and its figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tspcli.cli.console import err_console, out_console, printable

if TYPE_CHECKING:
    from tspcli.localization.evaluation import Evaluation


def say(text: str, style: str | None = None) -> None:
    """A line on stderr."""
    err_console().print(printable(text), markup=False, soft_wrap=True, style=style)


@contextmanager
def watch_training() -> Iterator[Callable[[str, Mapping[str, Any]], None]]:
    """Steps as a bar on a terminal, epochs as lines everywhere."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = err_console()
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    texts = [TextColumn(column) if isinstance(column, str) else column for column in columns]
    progress = Progress(*texts, console=console, transient=True, disable=not console.is_terminal)

    def observe(event: str, values: Mapping[str, Any]) -> None:
        if event == "step":
            progress.update(
                task,
                description=f"epoch {values['epoch']}/{values['epochs']}",
                completed=values["done"],
                total=values["of"],
            )
        else:
            line = _TRAINING_LINES[event](values)
            progress.console.print(printable(line), markup=False, soft_wrap=True)

    with progress:
        task = progress.add_task("", total=None)
        yield observe


def _data_line(values: Mapping[str, Any]) -> str:
    text = f"{values['n_videos']} videos in {values['n_windows']} windows"
    text += f" ({values['n_empty']} without actions left out), {values['n_valid']} to validate."
    for part, role in (("missing", "training"), ("valid_missing", "validation")):
        if missing := values[part]:
            shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
            text += f" {len(missing)} annotated {role} videos have no features: {shown}."
    return text


def _epoch_line(values: Mapping[str, Any]) -> str:
    text = f"epoch {values['epoch']}/{values['epochs']}: loss {values['train_loss']:.4f}"
    if "valid_loss" in values:
        text += f", validation {values['valid_loss']:.4f}"
    return text


_TRAINING_LINES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "data": _data_line,
    "classes": lambda v: f"class head: {v['accuracy']:.1%} of {v['n_samples']} training samples.",
    "resumed": lambda v: f"going on after epoch {v['epoch']}.",
    "epoch": _epoch_line,
}


def show_evaluation(evaluation: Evaluation) -> None:
    """The tables of both metrics on stdout."""
    from rich.table import Table

    console = out_console()
    if evaluation.detection is not None:
        table = Table("tIoU", "mAP %", title="Detection")
        for tiou in evaluation.detection.tious:
            table.add_row(f"{tiou:.2f}", f"{100 * evaluation.detection.map_at(tiou):.2f}")
        table.add_section()
        table.add_row("average", f"{100 * evaluation.detection.average_map:.2f}")
        console.print(table)
    table = Table("", "%", title="Proposals")
    for count in (1, 10, 100):
        recall = evaluation.proposals.ar_at(count)
        table.add_row(f"AR@{count}", "beyond" if recall is None else f"{100 * recall:.2f}")
    table.add_row("AUC", f"{100 * evaluation.proposals.auc:.2f}")
    console.print(table)
