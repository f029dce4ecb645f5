"""Why TSP and TAC localize alike on the rendered videos: explanations, each tried by experiment.

    tsp reproduce --out repro/ --seeds 0,1,2
    python benchmarks/reproduction_why.py repro/ --seeds 0,1,2 untrained few
    python benchmarks/reproduction_why.py repro/ --seeds 0 scratch hard

``untrained``: features of a network with random weights. ``few``: the localizer learns from few
videos. ``scratch``: TAC and TSP start from random weights instead of from trimmed clips of the same
motions. ``hard``: motions that are no action last as long as actions, stand in every gap, and
rehearsals are nearly as fast. Results go to ``repro/why/``; a second run does nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from reproduction.chain import Chain
from reproduction.experiment import CACHE, DATA, TABLES, TRIMMED_TABLES, ExperimentPlan
from reproduction.measures import FEATURES, MEASURES, localization_figures
from reproduction.outcome import markdown
from reproduction.scales import TINY, TRIMMED, VARIANTS, options_of
from reproduction.stages import STDOUT_FILE, Command, Stage, StageResult, StageRunner, Tell
from tspcli.core.files import replacing
from tspcli.core.progress import Reporter
from tspcli.encoders import TspModel, save_checkpoint
from tspcli.encoders.preprocessing import Preprocessing
from tspcli.sampling.pixels import ResizeSpec

UNTRAINED = "untrained"
FEW = (6, 25)
PAIR = tuple(variant for variant in VARIANTS if variant.name in ("tac", "tsp-max"))
KEYS = ("map_0.50", "map_0.75", "map", "ar_10", "auc")


class Watch(Reporter):
    """Names every stage."""

    def result(self, result: StageResult) -> None:
        if result.seconds:
            print(f"{result.stage.name}: {result.seconds:.0f} s", flush=True)


class ScratchPlan(ExperimentPlan):
    """Training on untrimmed videos begins with random weights."""

    def _chain(self, seed: int) -> Chain:
        return replace(super()._chain(seed), init="random")


def run(root: Path, stages: Sequence[Stage]) -> None:
    StageRunner(root, stages, jobs=TINY.jobs, reporter=Watch()).run()


def untrained(root: Path, seeds: Sequence[int]) -> dict[str, list[dict[str, float | None]]]:
    """Localization with features of random weights."""
    out = root / "why" / UNTRAINED
    stages = []
    for seed in seeds:
        name = f"seed{seed}"
        store = out / name / FEATURES

        def call(folder: Path, tell: Tell, seed: int = seed) -> None:
            torch.manual_seed(seed)
            small = Preprocessing(
                resize=ResizeSpec(height=TINY.resize[0], width=TINY.resize[1]),
                crop=(TINY.crop[0], TINY.crop[1]),
            )
            path = folder / "random.pth"
            save_checkpoint(path, TspModel("tiny"), backbone="tiny", preprocessing=small)

        weights = out / f"{name}-weights" / "random.pth"
        extract: Command = ("extract", "--videos", str(root / DATA / "videos"), "--workers", "1")
        extract += ("--weights", str(weights), "--stride", str(TINY.stride_frames))
        extract += ("--device", "cpu", "--out", str(store))
        stages += [
            Stage(f"{name}-weights", call=call, outputs=("random.pth",), settings={"seed": seed}),
            Stage(name, (extract,), after=(f"{name}-weights",), outputs=(FEATURES,)),
            localizer(
                root, out, f"{name}-bmn", store, root / DATA / "annotations.json", seed, name
            ),
        ]
    run(out, stages)
    return {UNTRAINED: [figures(out / f"seed{seed}-bmn") for seed in seeds]}


def few(root: Path, seeds: Sequence[int]) -> dict[str, list[dict[str, float | None]]]:
    """Localizers that learn from the first n training videos."""
    out = root / "why" / "few"
    out.mkdir(parents=True, exist_ok=True)
    content = json.loads((root / DATA / "annotations.json").read_text())
    names = [n for n, video in content["database"].items() if video["subset"] == "training"]
    stages: list[Stage] = []
    found: dict[str, list[Path]] = {}
    for count in FEW:
        left_out = set(names[count:])
        database = {n: v for n, v in content["database"].items() if n not in left_out}
        path = out / f"annotations-{count}.json"
        with replacing(path) as aside:
            aside.write_text(json.dumps({**content, "database": database}))
        for encoder in (TRIMMED, "tac", "tsp-max"):
            for seed in seeds:
                store = root / f"seed{seed}" / f"{encoder}.features" / FEATURES
                name = f"{encoder}-{count}-seed{seed}"
                # As many steps as with all videos.
                epochs = round(TINY.bmn["epochs"] * TINY.data.n_train / count)
                longer = {"epochs": epochs, "drop_epoch": round(epochs * 0.72)}
                stages.append(localizer(root, out, name, store, path, seed, None, longer))
                found.setdefault(f"{encoder}, {count} videos", []).append(out / name)
    run(out, stages)
    return {title: [figures(path) for path in paths] for title, paths in found.items()}


def localizer(
    root: Path,
    out: Path,
    name: str,
    store: Path,
    annotations: Path,
    seed: int,
    after: str | None,
    settings: dict[str, int] | None = None,
) -> Stage:
    """A stage that trains a localizer and measures it."""
    network, results = str(out / name / "run"), str(out / name / "results.json")
    bmn = {**TINY.bmn, **(settings or {})}
    everything = str(root / DATA / "annotations.json")
    train: Command = ("localize", "train", "--features", str(store), "--out", network)
    train += ("--annotations", str(annotations), "--seed", str(seed), "--device", "cpu")
    predict: Command = ("localize", "predict", "--run", network, "--features", str(store))
    predict += ("--annotations", everything, "--subset", "validation", "--out", results)
    evaluate: Command = ("localize", "evaluate", "--results", results, "--annotations", everything)
    return Stage(
        name,
        ((*train, *options_of(bmn)), (*predict, "--device", "cpu"), (*evaluate, "--json")),
        after=() if after is None else (after,),
        files=(store, annotations),
        outputs=(STDOUT_FILE,),
    )


def figures(folder: Path) -> dict[str, float | None]:
    """What a localizer reached."""
    return localization_figures(json.loads((folder / STDOUT_FILE).read_text()))


def scratch(root: Path, seeds: Sequence[int]) -> dict[str, list[dict[str, float | None]]]:
    """TAC and TSP from random weights."""
    out = root / "why" / "scratch"
    longer = {"stem_lr": 0.015, "backbone_lr": 0.015, "epochs": 10, "milestones": "8"}
    scale = replace(TINY, variants=PAIR, untrimmed={**TINY.untrimmed, **longer})
    shared = [DATA, TABLES, TRIMMED_TABLES, CACHE]
    same = ("gvf", *(TRIMMED + end for end in ("", ".features", ".bmn", ".measures")))
    shared += [f"seed{seed}/{name}" for seed in seeds for name in same]
    for name in shared:
        if not (out / name).exists():
            shutil.copytree(root / name, out / name)
    return planned(ScratchPlan(scale, out, seeds), "from random weights")


def hard(root: Path, seeds: Sequence[int]) -> dict[str, list[dict[str, float | None]]]:
    """Background that is harder to tell from actions."""
    data = replace(
        TINY.data,
        n_train=60,
        n_valid=40,
        gap_s=(4.0, 7.0),
        other_s=(2.5, 5.0),
        other_chance=0.6,
        rehearsal_chance=0.4,
        rehearsal_tempo=(0.5, 0.7),
        rehearsal_reach=(0.5, 0.7),
        seed=1,
    )
    scale = replace(TINY, variants=PAIR, data=data)
    return planned(ExperimentPlan(scale, root / "why" / "hard", seeds), "harder background")


def planned(plan: ExperimentPlan, title: str) -> dict[str, list[dict[str, float | None]]]:
    """Run a plan; the figures of its encoders."""
    plan.root.mkdir(parents=True, exist_ok=True)
    run(plan.root, plan.stages())
    names = (TRIMMED, *(variant.name for variant in plan.scale.variants))
    return {
        f"{name}, {title}": [
            json.loads((plan.root / f"seed{seed}" / f"{name}.measures" / MEASURES).read_text())
            for seed in plan.seeds
        ]
        for name in names
    }


def table(found: dict[str, list[dict[str, float | None]]]) -> str:
    """Means over the seeds, in percent."""
    rows = [["features", *KEYS]]
    for title, all_seeds in found.items():
        cells = []
        for key in KEYS:
            values = torch.tensor([100 * (seed[key] or 0.0) for seed in all_seeds])
            spread = f" ± {values.std():.2f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():.2f}{spread}")
        rows.append([title, *cells])
    return markdown(rows)


def main() -> None:
    """Run what is asked for and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    trials = {"untrained": untrained, "few": few, "scratch": scratch, "hard": hard}
    parser.add_argument("root", type=Path)
    parser.add_argument("trials", nargs="+", choices=list(trials))
    parser.add_argument("--seeds", default="0")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    for name in options.trials:
        print(f"\n{name}\n\n{table(trials[name](options.root.absolute(), seeds))}", flush=True)


if __name__ == "__main__":
    main()
