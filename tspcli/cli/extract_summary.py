"""What a run over videos says at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tspcli.cli.console import printable
from tspcli.wording import counted

if TYPE_CHECKING:
    from rich.console import Console

    from tspcli.extraction import ExtractReport


def summarize(console: Console, report: ExtractReport, *, of: str = "") -> None:
    """Tell what became of the videos, what helps those that failed, and how fast it went.

    Args:
        console: Where to.
        report: Of the run.
        of: What the videos became, if that is not said already.
    """
    from tspcli.extraction.report import STATUSES

    for result in report.videos:
        name = printable(result.path or result.key)
        if result.status in ("failed", "skipped"):
            console.print(
                f"{result.status}: {name}: {result.reason}: {printable(result.detail or '')}",
                style="red" if result.status == "failed" else "yellow",
                markup=False,
                soft_wrap=True,
            )
        elif result.warnings:
            text = printable("; ".join(result.warnings))
            console.print(f"note: {name}: {text}", style="yellow", markup=False, soft_wrap=True)
    for reason, remedy, count in report.remedies:
        console.print(
            f"{reason} ({counted(count, 'video')}): {printable(remedy)}",
            markup=False,
            soft_wrap=True,
        )
    counts = {status: len(report.with_status(status)) for status in STATUSES}
    said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    speed = ""
    if report.n_clips and report.wall_s:
        speed = (
            f" {report.video_s:.1f} s of video, {counted(report.n_clips, 'clip')} in "
            f"{report.wall_s:.1f} s: {report.video_s / report.wall_s:.1f} times real time, "
            f"limited by {report.bottleneck}."
        )
    became = f"{said or 'nothing to do'}{of and f' ({of})'}"
    last = f"{report.out}: {became}.{speed} Report: {report.path}"
    console.print(printable(last), markup=False, soft_wrap=True)
