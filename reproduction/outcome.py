"""What came out of an experiment: figures of all arms and seeds, and what they decide."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reproduction.inference import ALPHA, Contrast, differences, holm
from reproduction.measures import COLUMNS, MEASURES, Column, Figures

HEADLINE = "map"
SINGLE_FRAME = "single-frame"
"""A classifier of single frames of the trimmed clips, which measures what the scene gives away."""
TAC, MATCHED, NONE, MAX = "tac", "tac-matched", "tsp-none", "tsp-max"
SMALLEST_LEAD = 0.02
"""A lead whose whole interval lies below it refutes the claim; fixed by the design."""


@dataclass(frozen=True)
class Group:
    """Cells that differ in their seed alone.

    Attributes:
        title: For people.
        folders: Of the cells, by seed.
        titles: Name to title of every arm, in the order of the table.
        annotations: What localization is measured against, by seed.
        columns: Of the table.
        published: Figures of the paper by arm and key, as shares of 1.
        note: Where they come from, or what else a reader has to know.
        share: Of scenes that belong to their class; None for real videos.
    """

    title: str
    folders: Mapping[int, Path]
    titles: Mapping[str, str]
    annotations: Mapping[int, Path]
    columns: tuple[Column, ...] = COLUMNS
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    note: str = ""
    share: float | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the cells."""
        return tuple(self.folders)


class Outcome:
    """The figures of a group.

    Args:
        group: The cells; arms that a cell has not run are left out there.
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self.figures: dict[str, dict[int, Figures]] = {}
        for arm in group.titles:
            for seed, folder in group.folders.items():
                path = folder / f"{arm}.localized" / MEASURES
                if path.exists():
                    self.figures.setdefault(arm, {})[seed] = json.loads(path.read_text("utf-8"))

        self.scenes: dict[int, Figures] = {}
        for seed, folder in group.folders.items():
            path = folder / f"{SINGLE_FRAME}.features" / MEASURES
            if path.exists():
                self.scenes[seed] = json.loads(path.read_text("utf-8"))

    def values(self, arm: str, key: str = HEADLINE) -> dict[int, float]:
        """One figure of one arm by seed."""
        found = {seed: f.get(key) for seed, f in self.figures.get(arm, {}).items()}
        return {seed: value for seed, value in found.items() if value is not None}

    def contrast(self, better: str, worse: str, key: str = HEADLINE) -> Contrast | None:
        """The lead of one arm over another, paired over the seeds that have both."""
        first, second = self.values(better, key), self.values(worse, key)
        shared = [seed for seed in first if seed in second]
        if not shared:
            return None
        return differences([first[s] for s in shared], [second[s] for s in shared])

    def table(self) -> list[list[str]]:
        """Header and rows: means over the seeds, with standard deviations."""
        columns = self.group.columns
        rows = [["encoder", "seeds", *(column.title for column in columns)]]
        for arm, by_seed in self.figures.items():
            cells = [c.show(list(self.values(arm, c.key).values())) for c in columns]
            rows.append([self.group.titles[arm], str(len(by_seed)), *cells])
            if arm in self.group.published:
                published = self.group.published[arm]
                cells = [c.show([published[c.key]]) if c.key in published else "" for c in columns]
                rows.append([f"{self.group.titles[arm]}, published", "", *cells])
        return rows

    def seed_table(self) -> list[list[str]]:
        """Header and rows: every arm with every seed."""
        columns = self.group.columns
        rows = [["encoder, seed", *(column.title for column in columns)]]
        for arm, by_seed in self.figures.items():
            for seed, figures in by_seed.items():
                cells = [column.show([figures.get(column.key)]) for column in columns]
                rows.append([f"{self.group.titles[arm]}, {seed}", *cells])
        return rows

    def contrast_table(self) -> list[list[str]]:
        """Header and rows: the leads that the paper lets expect."""
        expected = (
            (NONE, MATCHED, HEADLINE),
            (MAX, MATCHED, HEADLINE),
            (MAX, NONE, HEADLINE),
            (MAX, TAC, HEADLINE),
            (TAC, "trimmed", HEADLINE),
            (MAX, TAC, "auc"),
            (MAX, TAC, "separation"),
            ("permuted", MATCHED, HEADLINE),
        )
        titles = {column.key: column.title for column in COLUMNS}
        rows = [["lead of", "over", "figure", "mean", "95 % interval", "spread", "seeds"]]
        for better, worse, key in expected:
            contrast = self.contrast(better, worse, key)
            if contrast is not None:
                names = (self.group.titles[better], self.group.titles[worse], titles[key])
                rows.append([*names, *shown(contrast, key != "separation")])
        return rows


SCENE_COLUMNS = (
    Column("scene_ratio", "R", percent=False),
    Column("single_frame_accuracy", "single frames, trimmed"),
    Column("untrimmed_accuracy", "single frames, untrimmed"),
    Column("kept", "kept", percent=False),
    Column("clip_accuracy", "clips, trimmed"),
)
_HEAD_COLUMNS = (
    (TAC, Column("train_action_accuracy", "TAC, training clips")),
    (MATCHED, Column("background_share", "K of TAC, matched", percent=False)),
    (NONE, Column("background_share", "K of TSP, no GVF", percent=False)),
)


def scene_table(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """Header and rows: what scenes give away at each share, R and K, and the gates."""
    titles = [column.title for column in (*SCENE_COLUMNS, *(c for _, c in _HEAD_COLUMNS))]
    rows = [["p", "seeds", *titles]]
    for outcome in outcomes:
        scenes = outcome.scenes.values()
        cells = [c.show([figures.get(c.key) for figures in scenes]) for c in SCENE_COLUMNS]
        cells += [c.show(list(outcome.values(arm, c.key).values())) for arm, c in _HEAD_COLUMNS]
        rows.append([f"{outcome.group.share:g}", str(len(scenes)), *cells])
    return rows


def shown(contrast: Contrast, percent: bool = True) -> list[str]:
    """Mean, interval, spread and number of seeds of a contrast."""
    scale, digits = (100.0, 1) if percent else (1.0, 3)
    if contrast.n < 2:
        return [f"{scale * contrast.mean:+.{digits}f}", "one seed has none", "", "1"]
    low, high = (scale * value for value in contrast.interval)
    ahead = sum(value > 0 for value in contrast.differences)
    return [
        f"{scale * contrast.mean:+.{digits}f}",
        f"{low:+.{digits}f} to {high:+.{digits}f}",
        f"{scale * contrast.spread:.{digits}f}",
        f"ahead in {ahead} of {contrast.n}",
    ]


def verdict(outcome: Outcome, *, better: str = NONE, worse: str = MATCHED) -> str:
    """One sentence on the claim, from a group's primary contrast.

    Raises:
        KeyError: If the group has not run both arms.
    """
    contrast = outcome.contrast(better, worse)
    if contrast is None:
        raise KeyError(f"{outcome.group.title} lacks {better} or {worse}")
    titles = outcome.group.titles
    pair = f"{titles[better]} compared with {titles[worse]}"
    lead = f"{100 * contrast.mean:+.1f} points of mean mAP"
    if contrast.n < 2:
        return f"{outcome.group.title}: {pair}, {lead} with one seed, which decides nothing."
    low, high = (100 * value for value in contrast.interval)
    interval = f"{lead} (95 % interval {low:+.1f} to {high:+.1f}, {contrast.n} seeds)"
    return f"{outcome.group.title}: {pair}, {interval}: {decision(contrast)}."


def decision(contrast: Contrast) -> str:
    """``refuted``, ``localizes better`` or ``undecided``, by rules that were fixed before."""
    low, high = contrast.interval
    if high < SMALLEST_LEAD:
        return "refuted"
    return "localizes better" if low > 0 else "undecided"


@dataclass(frozen=True)
class PlannedTest:
    """One test of the design.

    Attributes:
        role: ``primary``, ``second``, ``third`` or ``secondary``.
        text: What is compared.
        contrast: The seeds' differences.
        p: Of the paired t test, adjusted within the secondary family.
        rejected: Whether the null hypothesis is; None if an earlier test closed the way to it.
    """

    role: str
    text: str
    contrast: Contrast
    p: float
    rejected: bool | None


def planned_tests(outcomes: Sequence[Outcome]) -> list[PlannedTest]:
    """The tests that the design fixed, in its order, over the groups of a grid.

    Args:
        outcomes: One per share of scenes; those at 0 and 0.9 are needed.
    """
    by_share = {o.group.share: o for o in outcomes}
    if 0.9 not in by_share or 0.0 not in by_share:
        return []
    high, zero = by_share[0.9], by_share[0.0]
    primary = high.contrast(NONE, MATCHED)
    if primary is None:
        return []
    tests: list[PlannedTest] = []
    is_open = True
    steps = (
        ("primary", "TSP without GVF over TAC matched, p 0.9", primary),
        ("second", "the same lead, p 0.9 over p 0", _difference(high, zero)),
        ("third", "TSP with max GVF over TAC matched, p 0.9", high.contrast(MAX, MATCHED)),
    )
    for role, text, contrast in steps:
        if contrast is None:
            continue
        rejected = contrast.p_value < ALPHA if is_open else None
        tests.append(PlannedTest(role, text, contrast, contrast.p_value, rejected))
        is_open = bool(rejected)
    family: dict[str, Contrast | None] = {
        "AUC, TSP without GVF over TAC matched, p 0.9": high.contrast(NONE, MATCHED, "auc"),
        "mAP with true labels, likewise": high.contrast(NONE, MATCHED, "oracle_map"),
        "separation, likewise": high.contrast(NONE, MATCHED, "separation"),
        "TAC over trimmed clips alone, p 0.9": high.contrast(TAC, "trimmed"),
        "TSP without GVF over TAC, p 0.9": high.contrast(NONE, TAC),
    }
    for share, outcome in by_share.items():
        if share == 1:
            continue  # two seeds that describe, and test nothing
        family[f"max GVF over none, p {share:g}"] = outcome.contrast(MAX, NONE)
    usable = {name: c for name, c in family.items() if c is not None and c.n > 1}
    adjusted = holm({name: contrast.p_value for name, contrast in usable.items()})
    for name, contrast in usable.items():
        p = adjusted[name]
        tests.append(PlannedTest("secondary", name, contrast, p, p < ALPHA))
    return tests


def _difference(high: Outcome, zero: Outcome) -> Contrast | None:
    """How much larger a seed's primary lead is at one share than at another."""
    pairs = []
    for seed in high.group.seeds:
        values = [
            o.values(arm).get(seed) for o in (high, zero) for arm in (NONE, MATCHED)
        ]  # fmt: skip
        if None not in values:
            a, b, c, d = (v for v in values if v is not None)
            pairs.append((a - b) - (c - d))
    return Contrast(tuple(pairs)) if pairs else None


def planned_table(tests: Sequence[PlannedTest]) -> list[list[str]]:
    """Header and rows of the design's tests."""
    rows = [["test", "role", "mean", "95 % interval", "spread", "seeds", "p", "sign flips", "null"]]
    for test in tests:
        said = {True: "rejected", False: "kept", None: "not tested"}[test.rejected]
        cells = shown(test.contrast, "separation" not in test.text)
        flips = f"{test.contrast.sign_flip_p:.4f}"
        rows.append([test.text, test.role, *cells, f"{test.p:.4f}", flips, said])
    return rows


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Header and rows as a Markdown table."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(row) + " |" for row in rows[1:]]
    return "\n".join(lines) + "\n"
