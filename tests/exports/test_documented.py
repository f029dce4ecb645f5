"""The largest time errors that docs/exports.md states are those that occur."""

from __future__ import annotations

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from tspcli.annotations import read_together
from tspcli.exports import TARGETS, ExportOptions, ExportRequest
from tspcli.exports.export import load_target
from tspcli.exports.export_plan import worst_errors
from tspcli.exports.planner import make_plan
from tspcli.sampling import Sampling
from tspcli.store.schema import sampling_attributes
from tspcli.store.store_set import StoreSet

DOCS = Path(__file__).parents[2] / "docs" / "exports.md"
LONGEST_S = 800.0
RATES = (24.0, 25.0, 30000 / 1001, 30.0, 23.713, 59.94)


def documented() -> list[tuple[str, str, str, float, float]]:
    """(target, options, clock, away from the ends, at the ends) of each line of the table."""
    lines = re.findall(
        r"^\| `([\w-]+)` \| (.*?) \| ([\w-]+) \| ([\d.]+) \| ([\d.]+) \|", DOCS.read_text(), re.M
    )
    return [(t, o.strip("` "), c, float(i), float(w)) for t, o, c, i, w in lines]


def durations() -> list[float]:
    rng = np.random.default_rng(7)
    # The last is where rounding to the nearest row adds most to a stretched long video.
    some = (
        rng.uniform(1.1, 240, 250),
        rng.uniform(240, LONGEST_S, 40),
        [1.1, 2.13, LONGEST_S, 792.5],
    )
    # Just before another clip would fit, and just after.
    whole = [n * 16 / 15 + d for n in (1, 2, 40, 700) for d in (0.0, 1.05)]
    return [round(float(d), 3) for d in np.concatenate([*some, whole])]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """A store whose rows are never read, and annotations of it, at stride 16 and 1."""
    folder = tmp_path_factory.mktemp("documented")
    found = {}
    for name, stride, pattern in (
        ("activitynet", 16, "v_{:011d}"),
        ("thumos14", 1, "video_test_{:07d}"),
    ):
        sampling = Sampling(stride=stride)
        database = {}
        with h5py.File(folder / f"{name}.h5", "w") as file:
            for number, duration in enumerate(durations()):
                key = pattern.format(number)
                n = max(1, sampling.n_clips(round(duration * 30)))
                dataset = file.create_dataset(key, (n, 512), "f4")
                dataset.attrs.update(sampling_attributes(sampling))
                dataset.attrs["duration_s"] = duration
                dataset.attrs["source_fps"] = RATES[number % len(RATES)]
                database[key.removeprefix("v_")] = {
                    "subset": "training",
                    "duration": duration,
                    "annotations": [{"segment": [0, 1], "label": "x"}],
                }
        (folder / f"{name}.json").write_text(json.dumps({"database": database}))
        found[name] = folder / f"{name}.h5", folder / f"{name}.json"
    return found


def options_of(text: str) -> tuple[str, dict]:
    """The data set and the options that a line of the table names."""
    data_set, options = "activitynet", {}
    for name, value in re.findall(r"--([\w-]+) ([\w.-]+)", text):
        key = {"grid-seconds": "grid_s"}.get(name, name.replace("-", "_"))
        if key == "data_set":
            data_set = value
        else:
            options[key] = float(value) if re.fullmatch(r"[\d.]+", value) else value
    if "length" in options:
        options["length"] = int(options["length"])
    return data_set, options


@pytest.mark.parametrize(
    "line", documented(), ids=lambda line: f"{line[0]} {line[1]} {line[2]}".replace("--", "")
)
def test_stated_errors(line: tuple, stores: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    target, text, clock, inside, worst = line
    data_set, options = options_of(text)
    if target == "gtad-thumos":
        data_set = "thumos14"
    store, annotations = stores[data_set]
    request = ExportRequest((store,), target, tmp_path / "out", (), None, ExportOptions(**options))
    reader = load_target(target)
    with StoreSet((store,)) as sources:
        plan = make_plan(reader, request, sources, read_together([annotations]))
        found = worst_errors(plan.videos, lambda video: reader.clocks(video, plan))[clock]
    # Neither too low nor a number that nothing reaches.
    assert found.inside_s <= inside + 5e-3
    assert found.inside_s >= 0.9 * inside - 5e-3
    assert found.worst_s <= worst + 5e-3
    assert found.worst_s >= 0.9 * worst - 5e-3


def test_every_target_is_documented() -> None:
    assert {line[0] for line in documented()} == set(TARGETS)
