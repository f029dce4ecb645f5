"""What came out of an experiment: figures of all encoders and seeds, and whether they agree."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from reproduction.measures import COLUMNS, MEASURES, Column

HEADLINE = "map"
TAC, TSP = "tac", "tsp-max"


@dataclass(frozen=True)
class Group:
    """One data set of an experiment.

    Attributes:
        title: For people.
        root: The experiment's folder.
        stage_of: The name of a stage of this data set, given a seed and the stage's own name.
        seeds: Of the trainings.
        titles: Name to title of every encoder, in the order of the table.
        clip_lengths: Frames a clip to the encoder that was trained with them.
        annotations, subset: What localization is measured against.
        columns: Of the table.
        published: Figures of the paper by encoder and key, as shares of 1.
        published_note: Where they come from.
    """

    title: str
    root: Path
    stage_of: Callable[[int, str], str]
    seeds: tuple[int, ...]
    titles: Mapping[str, str]
    clip_lengths: Mapping[int, str]
    annotations: Path
    subset: str | None = "validation"
    columns: tuple[Column, ...] = COLUMNS
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    published_note: str = ""

    def folder(self, seed: int, stage: str) -> Path:
        """Where a stage lies."""
        return self.root / self.stage_of(seed, stage)


@dataclass(frozen=True)
class Expectation:
    """Something that has to follow if the paper is right.

    Attributes:
        text: What.
        better, worse: Encoders.
        key: The figure that is compared.
        pairs: The figure of both encoders, for each seed.
    """

    text: str
    better: str
    worse: str
    key: str
    pairs: tuple[tuple[float, float], ...]

    @property
    def got(self) -> tuple[float, float]:
        """Means of both over the seeds."""
        first, second = np.mean(self.pairs, axis=0).tolist()
        return first, second

    @property
    def n_agreeing(self) -> int:
        """Seeds in which the order comes out."""
        return sum(a > b for a, b in self.pairs)

    @property
    def lead(self) -> float:
        """Mean difference over the seeds."""
        return self.got[0] - self.got[1]

    @property
    def error(self) -> float:
        """Standard error of the lead; infinite for one seed, of which nothing can be told."""
        n = len(self.pairs)
        differences = [a - b for a, b in self.pairs]
        return float(np.std(differences, ddof=1)) / math.sqrt(n) if n > 1 else math.inf

    @property
    def holds(self) -> bool:
        """Whether the lead exceeds twice its standard error."""
        return self.lead > 0 and self.lead > 2 * self.error

    @property
    def answer(self) -> str:
        """``yes``, ``NO``, ``within the spread``, or ``one seed cannot tell``."""
        if len(self.pairs) == 1:
            return "one seed cannot tell"
        if self.holds:
            return "yes"
        return "NO" if self.lead <= 0 and -self.lead >= 2 * self.error else "within the spread"


class Outcome:
    """The figures of one data set.

    Args:
        group: The data set.
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self.figures: dict[str, list[dict[str, float | None]]] = {
            name: [
                json.loads((group.folder(seed, f"{name}.measures") / MEASURES).read_text("utf-8"))
                for seed in group.seeds
            ]
            for name in group.titles
        }

    def values(self, name: str, key: str) -> list[float | None]:
        """One figure of one encoder, for each seed."""
        return [figures.get(key) for figures in self.figures[name]]

    def expectations(self) -> list[Expectation]:
        """The orders of the paper's tables that this experiment can test."""
        orders = [
            ("TSP (max GVF) localizes better than TAC", TSP, TAC, HEADLINE),
            ("TSP without GVF localizes better than TAC", "tsp-none", TAC, HEADLINE),
            ("max GVF is better than mean GVF", TSP, "tsp-mean", HEADLINE),
            ("mean GVF is better than none", "tsp-mean", "tsp-none", HEADLINE),
            ("both heads are better than the region head alone", TSP, "region", HEADLINE),
            ("TSP proposes better than TAC", TSP, TAC, "auc"),
            ("TSP separates foreground and background better than TAC", TSP, TAC, "separation"),
            ("max GVF helps the region head", TSP, "tsp-none", "region_accuracy"),
        ]
        found = []
        for text, better, worse, key in orders:
            if better not in self.figures or worse not in self.figures:
                continue
            pairs = tuple(
                (a, b)
                for a, b in zip(self.values(better, key), self.values(worse, key), strict=True)
                if a is not None and b is not None
            )
            if pairs:
                found.append(Expectation(text, better, worse, key, pairs))
        return found

    @property
    def confirmed(self) -> bool:
        """Whether TSP leads TAC in mean mAP by more than the seeds differ; never with one seed."""
        return self.expectations()[0].holds

    def verdict(self) -> str:
        """One sentence on the paper's claim."""
        claim = self.expectations()[0]
        figures = f"mean mAP {100 * claim.got[0]:.2f} against {100 * claim.got[1]:.2f}"
        if len(claim.pairs) == 1:
            order = "comes out" if claim.lead > 0 else "does NOT come out"
            return (
                f"{self.group.title}: one seed cannot tell whether TSP (max GVF) localizes better "
                f"than TAC; in it the order of the paper {order}: {figures}."
            )
        figures += (
            f", lead {100 * claim.lead:+.2f} with a standard error of {100 * claim.error:.2f}; "
            f"TSP ahead in {claim.n_agreeing} of {len(claim.pairs)} seeds"
        )
        if claim.holds:
            return f"{self.group.title}: TSP (max GVF) localizes better than TAC: {figures}."
        how = "TSP (max GVF) and TAC localize alike within the spread of the seeds"
        if claim.answer == "NO":
            how = "TSP (max GVF) does not localize better than TAC"
        return f"{self.group.title}: the order of the paper does NOT come out; {how}: {figures}."

    def table(self, names: Sequence[str] | None = None) -> list[list[str]]:
        """Header and rows: means over the seeds, with standard deviations."""
        columns = self.group.columns
        rows = [["encoder", *(column.title for column in columns)]]
        for name in names or list(self.group.titles):
            cells = [column.show(self.values(name, column.key)) for column in columns]
            rows.append([self.group.titles[name], *cells])
            if names is None and name in self.group.published:
                published = self.group.published[name]
                cells = [
                    column.show([published[column.key]]) if column.key in published else ""
                    for column in columns
                ]
                rows.append([f"{self.group.titles[name]}, published", *cells])
        return rows

    def seed_table(self) -> list[list[str]]:
        """Header and rows: every encoder with every seed."""
        columns = self.group.columns
        rows = [["encoder, seed", *(column.title for column in columns)]]
        for name, title in self.group.titles.items():
            for number, seed in enumerate(self.group.seeds):
                cells = [column.show([self.values(name, column.key)[number]]) for column in columns]
                rows.append([f"{title}, {seed}", *cells])
        return rows

    def clip_length_table(self) -> list[list[str]]:
        """Header and rows: localization by the length of clips."""
        columns = self.group.columns
        rows = [["frames a clip", *(column.title for column in columns)]]
        for frames, name in self.group.clip_lengths.items():
            cells = [column.show(self.values(name, column.key)) for column in columns]
            rows.append([str(frames), *cells])
        return rows

    def expectation_table(self) -> list[list[str]]:
        """Header and rows: what the paper lets expect, and what came."""
        titles = {column.key: column for column in COLUMNS}
        rows = [["expected", "figure", "got", "lead", "seeds that agree", "holds"]]
        for item in self.expectations():
            column = titles[item.key]
            got = " against ".join(column.show([value]) for value in item.got)
            scale, digits = (100, 2) if column.percent else (1, 3)
            lead = f"{scale * item.lead:+.{digits}f}"
            if len(item.pairs) > 1:
                lead += f" (± {scale * item.error:.{digits}f})"
            seeds = f"{item.n_agreeing} of {len(item.pairs)}"
            rows.append([item.text, column.title, got, lead, seeds, item.answer])
        return rows


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Header and rows as a Markdown table."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(row) + " |" for row in rows[1:]]
    return "\n".join(lines) + "\n"
