"""A run's folder: taken, refused, or emptied."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from tspcli.annotations.segments import write_label_mapping
from tspcli.core.files import remove_leftovers, replacing
from tspcli.core.run_dir import one_writer, require_same
from tspcli.core.settings import parse_toml, read_toml_text, to_toml
from tspcli.core.version import __version__
from tspcli.encoders.checkpoints import BEST_CHECKPOINT
from tspcli.errors import TrainingError, UsageError
from tspcli.pretraining.data import RunInputs
from tspcli.pretraining.precheck import UNREADABLE_FILE, write_left_out
from tspcli.pretraining.run_state import LAST_CHECKPOINT, RECIPE_FILE, RunFolder
from tspcli.pretraining.training_log import CURVES_FILE, RESULTS_FILE, TENSORBOARD_FOLDER
from tspcli.pretraining.training_recipe import Execution, Recipe

LABELS_FILE = "action_label_mapping.json"
_FILES = (
    *(RECIPE_FILE, LAST_CHECKPOINT, BEST_CHECKPOINT, RESULTS_FILE, UNREADABLE_FILE, LABELS_FILE),
    CURVES_FILE,
)


def files_of_a_run(path: Path, epochs: int) -> list[Path]:
    """Every file that a run of some epochs may write into its folder, in order of importance."""
    return [path / name for name in (*_FILES, *(f"epoch_{n}.pth" for n in range(epochs)))]


def check_folder(
    folder: RunFolder, recipe: Recipe, inputs: RunInputs, *, resume: bool, overwrite: bool
) -> None:
    """See that a run can be begun or gone on with in a folder, and write nothing yet.

    Raises:
        TrainingError: If it holds a run, and that is not to be resumed or was another; or if it
            holds files of no run that this one would replace.
        UsageError: If one of the run's inputs would be replaced.
    """
    path = folder.path
    if path.exists() and not path.is_dir():
        raise TrainingError(f"{path} is a file.", remedy="Give a folder as --out.")
    present = [file for file in files_of_a_run(path, recipe.epochs) if file.exists()]
    stored = path / RECIPE_FILE
    if overwrite:
        _refuse_inputs({*present, *path.glob("epoch_*.pth")}, path, recipe, inputs)
    elif stored in present:
        if not resume:
            raise TrainingError(
                f"{path} already holds a run.",
                remedy="Go on with it (--resume), give another --out, or begin again in its place "
                "(--overwrite).",
            )
        content = parse_toml(read_toml_text(stored), str(stored))
        content.pop("execution", None)
        content.pop("tool_version", None)
        # As it would be stored: not every name of a file can be.
        current = parse_toml(to_toml(recipe.to_dict()), "the recipe")
        require_same(content, current, str(path))
    elif present:
        raise TrainingError(
            f"{path} holds {present[0].name}, but no {RECIPE_FILE}: that is of no run which could "
            "be gone on with, and would be replaced.",
            remedy="Give another --out, or --overwrite.",
        )


def _refuse_inputs(present: set[Path], path: Path, recipe: Recipe, inputs: RunInputs) -> None:
    given = {
        "--train": inputs.train,
        "--valid": inputs.valid,
        "--labels": inputs.labels,
        "--gvf": inputs.gvf,
        "--init": Path(recipe.init),
        "--gvf-weights": Path(recipe.gvf_weights) if recipe.gvf_weights else None,
    }
    for option, source in given.items():
        if source is None or not source.exists():
            continue
        if source.resolve() in {path.resolve(), *(file.resolve() for file in present)}:
            raise UsageError(
                f"{option} {source} lies in --out {path}, which would be emptied.",
                remedy="Give another --out.",
            )


def open_folder(
    folder: RunFolder,
    recipe: Recipe,
    execution: Execution,
    labels: list[str],
    left_out: Mapping[str, str],
    overwrite: bool = False,
) -> ExitStack:
    """Lock the run's folder and write down what it is.

    The recipe comes first: with it the folder is known as this run's, if it is killed here.
    """
    path = folder.path
    path.mkdir(parents=True, exist_ok=True)
    stack = ExitStack()
    stack.enter_context(one_writer(folder.last))
    own = files_of_a_run(path, recipe.epochs)
    for file in own:
        remove_leftovers(file)  # of a run that was killed while it wrote
    if overwrite:
        for file in (*reversed(own), *path.glob("epoch_*.pth")):
            file.unlink(missing_ok=True)
        shutil.rmtree(path / TENSORBOARD_FOLDER, ignore_errors=True)
    with replacing(path / RECIPE_FILE) as aside:
        aside.write_text(
            "# The resolved recipe of this run.\n"
            + to_toml(
                {
                    **recipe.to_dict(),
                    "tool_version": __version__,
                    "execution": execution.to_dict(),
                }
            ),
            encoding="utf-8",
        )
    with replacing(path / LABELS_FILE) as aside:
        write_label_mapping(aside, labels)
    write_left_out(path, left_out)
    return stack


def read_run_recipe(folder: str | Path) -> Recipe:
    """The recipe of a run's folder.

    Raises:
        UsageError: If there is none.
    """
    path = Path(folder) / RECIPE_FILE
    if not path.is_file():
        raise UsageError(f"{folder} is no run's folder.", remedy="It lacks recipe.toml.")
    content = parse_toml(read_toml_text(path), str(path))
    return Recipe.from_dict(
        {k: v for k, v in content.items() if k not in ("execution", "tool_version")}
    )
