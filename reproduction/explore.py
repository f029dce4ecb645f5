"""What readers of the paper ask: variations with a few seeds, exploratory and without tests."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from reproduction.chain import Arm, Chain, options_of
from reproduction.inference import Contrast
from reproduction.outcome import Group, Outcome, shown
from reproduction.scales import TAC_MATCHED, TSP_MAX, TSP_NONE, Cell, Scale
from reproduction.stages import Stage, Tell
from reproduction.synthetic import MOTIONS
from tspcli.core.files import replacing

PAIR = (TAC_MATCHED, TSP_NONE)
LENGTHS = (8, 32)
FEW = (6, 25)
"""Labelled videos of a localizer, in place of all."""
N_FOUR = 4
"""Motions that encoders learn whose features are tried on other videos with all motions."""
PLAIN = "-plain"
"""Ends the name of cells in which no gap holds a motion of another class."""
_FOUR_TABLE = "train_groundtruth.csv"


def varied(arm: Arm, ending: str, title: str, **changes: Any) -> Arm:
    """An arm that differs in something."""
    return replace(arm, name=f"{arm.name}-{ending}", title=f"{arm.title}, {title}", **changes)


def plain(scale: Scale) -> Scale:
    """The scale whose videos let no context decide what is an action."""
    data = replace(
        scale.data,
        other_chance=0.0,
        rehearsal_chance=scale.data.other_chance + scale.data.rehearsal_chance,
    )
    return replace(
        scale, variant=PLAIN, data=data, arms=(TSP_NONE, TSP_MAX),
        seeds=scale.explored, shares=(0.9,), n_described=0, control_share=None, explored=(),
    )  # fmt: skip


def variations(chain_of: Callable[[Cell], Chain], scale: Scale) -> list[Stage]:
    """The stages of all variations but the plain cells.

    Args:
        chain_of: The chain of a cell whose own stages stand before these.
        scale: What is varied.
    """
    stages: list[Stage] = []
    for number, seed in enumerate(scale.explored):
        chain = chain_of(Cell(0.9, seed))
        # Other scenes: those of the next seed's data set.
        other = chain_of(Cell(0.9, scale.explored[(number + 1) % len(scale.explored)]))
        stages += [_four_table(chain), *(_few_annotations(chain, count) for count in FEW)]
        for arm in PAIR:
            stages += _arms_of(chain, scale, arm)
            stages += _with_few_labels(chain, scale, arm)
            stages += _on_other_videos(chain, other, arm)
    return stages


def _arms_of(chain: Chain, scale: Scale, arm: Arm) -> list[Stage]:
    stem = {**arm.settings, "stem_lr": scale.untrimmed["backbone_lr"]}
    arms = [varied(arm, str(n), f"clips of {n} frames", clip_length=n) for n in LENGTHS]
    stages = []
    for one in (*arms, varied(arm, "stem", "stem trained", settings=stem)):
        stages += [chain.pretrain_stage(one), chain.extract_stage(one.name)]
        stages.append(chain.localize_stage(one.name))
    return stages


def _few_annotations(chain: Chain, count: int) -> Stage:
    """The annotations with the first training videos by name alone: classes take turns."""

    def call(folder: Path, tell: Tell) -> None:
        content = json.loads(chain.annotated_train.read_text(encoding="utf-8"))
        videos = content["database"]
        named = sorted(name for name, video in videos.items() if video["subset"] == "training")
        for name in named[count:]:
            del videos[name]
        with replacing(folder / chain.annotated_train.name) as aside:
            aside.write_text(json.dumps(content), encoding="utf-8")

    return Stage(
        f"{chain.prefix}few{count}",
        call=call,
        after=chain.before,
        outputs=(chain.annotated_train.name,),
        settings={"videos": count},
        about=f"the annotations of {count} training videos",
    )


def _with_few_labels(chain: Chain, scale: Scale, arm: Arm) -> list[Stage]:
    """Localizers that see few videos, in as many steps."""
    stages = []
    for count in FEW:
        batch, all_videos = scale.bmn["batch_size"], scale.data.n_train
        times = -(-all_videos // batch) / -(-count // batch)
        longer = {k: round(scale.bmn[k] * times) for k in ("epochs", "drop_epoch")}
        few = replace(
            chain,
            annotated_train=chain.folder(f"few{count}") / chain.annotated_train.name,
            localize_options=tuple(options_of({**scale.bmn, **longer})),
            before=(*chain.before, f"{chain.prefix}few{count}"),
        )
        stages.append(few.localize_stage(arm.name, suffix=f"-few{count}"))
    return stages


def _four_table(chain: Chain) -> Stage:
    """The training table without the videos of the last two motions."""

    def call(folder: Path, tell: Tell) -> None:
        with open(chain.train, encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        left_out = {r["video-name"] for r in rows if r["action-label"] in MOTIONS[N_FOUR:]}
        path = folder / _FOUR_TABLE
        with replacing(path) as aside, aside.open("w", encoding="utf-8", newline="") as new:
            writer = csv.DictWriter(new, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(row for row in rows if row["video-name"] not in left_out)

    return Stage(
        f"{chain.prefix}four",
        call=call,
        after=chain.before,
        outputs=(_FOUR_TABLE,),
        settings={"motions": MOTIONS[:N_FOUR]},
        about="the training table of four motions",
    )


def _on_other_videos(chain: Chain, other: Chain, arm: Arm) -> list[Stage]:
    """An encoder of four motions; localization in another data set, with all motions."""
    one = varied(arm, "four", "of four motions, on other videos")
    four = f"{chain.prefix}four"
    trains = replace(
        chain, train=chain.folder("four") / _FOUR_TABLE, before=(*chain.before, four)
    )  # fmt: skip
    finds = replace(
        chain,
        folders=other.folders,
        annotated_train=other.annotated_train,
        annotated_valid=other.annotated_valid,
        before=(*chain.before, *other.before),
    )
    return [
        trains.pretrain_stage(one),
        finds.extract_stage(one.name),
        finds.localize_stage(one.name),
    ]


class Question(NamedTuple):
    """A row of the exploratory table.

    Attributes:
        text: What is varied.
        better, worse: Arms whose difference is shown.
        variant: Of the cells.
    """

    text: str
    better: str
    worse: str
    variant: str = ""


def questions() -> list[Question]:
    """All rows, in the order of the table."""

    def row(text: str, ending: str = "") -> Question:
        return Question(text, TSP_NONE.name + ending, TAC_MATCHED.name + ending)

    rows = [row(f"clips of {n} frames", "" if n == 16 else f"-{n}") for n in sorted((*LENGTHS, 16))]
    rows += [row(f"localizer learns from {n} videos", f"-few{n}") for n in FEW]
    rows += [
        row("localizer learns from all videos"),
        row("stem trained", "-stem"),
        row("encoders of four motions, on other scenes and all motions", "-four"),
        Question("GVF where context decides", TSP_MAX.name, TSP_NONE.name),
        Question("GVF where it does not", TSP_MAX.name, TSP_NONE.name, PLAIN),
    ]
    return rows


def explored_table(root: Path, seeds: tuple[int, ...]) -> list[list[str]]:
    """Header and rows of what has been explored so far; empty if nothing has."""
    rows: list[list[str]] = []
    for question in questions():
        folders = {seed: root / Cell(0.9, seed, question.variant).name for seed in seeds}
        titles = {name: name for name in (question.better, question.worse)}
        contrast: Contrast | None = Outcome(Group("", folders, titles, {})).contrast(
            question.better, question.worse
        )
        if contrast is not None:
            rows.append([question.text, question.better, question.worse, *shown(contrast)])
    head = ["what is varied", "lead of", "over", "mean", "95 % interval", "spread", "seeds"]
    return [head, *rows] if rows else []
