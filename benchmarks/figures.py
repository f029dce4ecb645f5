"""Measured figures: how they are taken, shown and kept."""

from __future__ import annotations

import json
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

NOT_MEASURED = "not measured"
_CELL = 160


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        part: Of the benchmark.
        what: What was measured.
        value: The figure; None if it could not be measured here.
        unit: Of the figure.
        target: What it should be, in words.
        met: Whether it is; None if there is no target or no figure.
        roof: What nothing can exceed, in the same unit, measured in the same run.
        roof_name: What that is.
        note: Whatever else must be known.
    """

    part: str
    what: str
    value: float | None
    unit: str = ""
    target: str = ""
    met: bool | None = None
    roof: float | None = None
    roof_name: str = ""
    note: str = ""

    @classmethod
    def at_least(
        cls, part: str, what: str, value: float, bar: float, unit: str, **more: Any
    ) -> Figure:
        """A figure that should not be below a bar."""
        roof = more.get("roof")
        words = f"{bar / roof:.2g} of {more['roof_name']}" if roof else f"{number(bar)} {unit}"
        return cls(part, what, value, unit, f"at least {words}".strip(), value >= bar, **more)

    def under(self, roof: float, roof_name: str) -> Figure:
        """The same beside a roof of which its target is not a share."""
        return replace(self, roof=roof, roof_name=roof_name)

    @classmethod
    def below(
        cls, part: str, what: str, value: float, bar: float, unit: str, **more: Any
    ) -> Figure:
        """A figure that should be below a bar."""
        return cls(part, what, value, unit, f"under {number(bar)} {unit}", value < bar, **more)

    @classmethod
    def missing(cls, part: str, what: str, target: str, command: str) -> Figure:
        """A figure that this machine cannot give, and how to get it."""
        return cls(part, what, None, target=target, note=command)

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """What, figure, roof, target, whether it is met."""
        if self.value is None:
            # A table has no place for notes, and this one is the figure.
            shown = ": ".join(filter(None, (NOT_MEASURED, _cell(self.note))))
        else:
            shown = f"{number(self.value)} {self.unit}".strip()
        roof = ""
        if self.roof and self.value is not None:
            roof = f"{self.value / self.roof:.2f} of {self.roof_name} ({number(self.roof)})"
        met = {True: "yes", False: "no", None: ""}[self.met]
        return (self.what, shown, roof, self.target, met)


def _cell(words: str) -> str:
    """Words that fit into a cell of a table."""
    line = " ".join(words.replace("|", "/").split())
    return line if len(line) <= _CELL else f"{line[: _CELL - 1]}…"


def number(value: float) -> str:
    """Three digits that say something."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def in_turns(
    parts: dict[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    *,
    warm_up: bool = True,
) -> dict[str, float]:
    """Median seconds of each part; the parts take turns, so that all see the same machine."""
    times: dict[str, list[float]] = {name: [] for name in parts}
    for turn in range(rounds + warm_up):
        for name, part in parts.items():
            began = clock()
            part()
            if turn or not warm_up:
                times[name].append(clock() - began)
    return {name: statistics.median(taken) for name, taken in times.items()}


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes in one thread; a second one is counted as busy even while it waits."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def spent_s() -> float:
    """Processor seconds of this process and of those that it has started and that have ended."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(sum(resource.getrusage(kind)[:2]) for kind in kinds)


HEADS = ("what", "figure", "of its roof", "target", "met")


def show(figures: Sequence[Figure]) -> None:
    """A table on the screen."""
    rows = [HEADS, *(figure.cells for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS))]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    for figure in figures:
        if figure.note and figure.value is not None:
            print(f"  {figure.what}: {figure.note}")
    print(flush=True)


def markdown(figures: Sequence[Figure]) -> str:
    """The figures as a table."""
    lines = [f"| {' | '.join(HEADS)} |", "|" + "---|" * len(HEADS)]
    lines += [f"| {' | '.join(figure.cells)} |" for figure in figures]
    return "\n".join(lines) + "\n"


def keep(figures: Sequence[Figure], path: Path) -> None:
    """Append a JSON line a figure."""
    common = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "machine": machine()}
    with path.open("a", encoding="utf-8") as file:
        for figure in figures:
            file.write(json.dumps(common | asdict(figure)) + "\n")


def machine() -> str:
    """The processor, how many cores, and the GPU if there is one."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0].partition(":")[2].strip() if models else name
    words = f"{name}, {len_cores()} cores, torch {torch.__version__}"
    if torch.cuda.is_available():
        words += f", {torch.cuda.get_device_name()}"
    return words


def len_cores() -> int:
    """Cores that this process may use."""
    from tspcli.core.child_process import available_cores

    return available_cores()
