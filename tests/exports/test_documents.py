"""The examples in the README and in docs/readers.md, run as they stand."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.exports.conftest import (
    ANET,
    THUMOS,
    Clip,
    anet_json,
    make_foreign,
    make_store,
    thumos_tables,
)
from tspcli.cli.main import cli
from tspcli.exports import TARGETS
from tspcli.sampling import Sampling

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/readers.md")


def commands(page: str) -> list[str]:
    text = (ROOT / page).read_text()
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.M | re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [re.sub(r"\s+", " ", line) for line in lines if line.startswith("tsp export ")]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with every file that the examples name."""
    monkeypatch.chdir(tmp_path)
    for name, clips in (("train", ANET[:4]), ("valid", ANET[4:]), ("feats", ANET)):
        make_store(tmp_path / f"{name}.h5", clips, Sampling())
    make_foreign(tmp_path / "released.h5", ANET, Sampling())
    for name in ("clip", "slowfast"):
        make_store(tmp_path / f"{name}.h5", ANET[:3], Sampling())
    for name in ("rgb", "flow"):
        make_store(tmp_path / f"{name}.h5", THUMOS[:2], Sampling(), dim=256)
    make_store(tmp_path / "dense.h5", THUMOS, Sampling(stride=1))
    thumos_tables(tmp_path, THUMOS)
    anet_json(tmp_path / "activity_net.v1-3.min.json", ANET, ["GONE"])
    (tmp_path / "activitynet_v1-3_action_label_mapping.json").write_text(
        json.dumps(["Archery", "Ballet", "Zumba"])
    )
    for store, table, header in (
        ("mine.h5", "actions.csv", "file,begin,finish,class,subset"),
        ("kitchens.h5", "epic_verbs.csv", "video_id,start_timestamp,stop_timestamp,type,split"),
    ):
        clips = [Clip("P01_01", 30.0, 30.0), Clip("P02_101", 30.0, 30.0)]
        make_store(tmp_path / store, clips, Sampling())
        rows = "P01_01,00:00:03.5,0:09,wash,train\nP02_101,1,2.5,take,val\n"
        (tmp_path / table).write_text(f"{header}\n{rows}")
    (tmp_path / "captions").mkdir()
    header = "video_id\tcaption\tstart\tend\tduration\tphase\tidx\n"
    for phase, clips in (("train", ANET[:4]), ("val_1", ANET[4:]), ("val_2", ANET[4:])):
        rows = "".join(
            f'{c.key}\tA "man" jumps, {phase}\t0.0\t1.0\t{c.duration_s}\t{phase}\t{i}\n'
            for i, c in enumerate(clips)
        )
        (tmp_path / f"{phase}.csv").write_text(header + rows)
        captions = {
            c.key: {"duration": c.duration_s, "timestamps": [[0, 1]], "sentences": ["It starts."]}
            for c in clips
        }
        name = {"train": "train_modified.json"}.get(phase, f"captions/{phase}.json")
        (tmp_path / name).write_text(json.dumps(captions))
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_examples_work(page: str, workplace: Path) -> None:
    found = commands(page)
    assert found
    for command in found:
        result = CliRunner().invoke(cli, shlex.split(command)[1:])
        assert result.exit_code == 0, f"{command}\n{result.output}\n{result.exception}"
        # The files that the page passes to readers are there.
    text = (ROOT / page).read_text()
    for path in set(re.findall(r"(?<=[ `])[\w.]+(?:\.export)?/annotations/[\w.]+", text)):
        assert (workplace / path).is_file(), path
    for path in set(re.findall(r"(?<=`)\w+/[\w]+\.(?:yaml|yml|py)(?=`)", text)):
        if not path.startswith(("configs", "cfgs")):
            assert (workplace / path).is_file(), path


def test_every_target_has_an_example_and_a_place_in_the_readme() -> None:
    examples = [shlex.split(command) for command in commands("docs/readers.md")]
    assert {words[words.index("--to") + 1] for words in examples} == set(TARGETS)
    table = (ROOT / "README.md").read_text().split("| `--to` | reader |")[1].split("\n\n")[0]
    named = {name for line in table.splitlines() for name in re.findall(r"`([\w-]+)`", line)}
    assert named == set(TARGETS)


def test_bmt_and_pdvc_get_their_captions(workplace: Path) -> None:
    for command in commands("docs/readers.md"):
        if "--to bmt" in command or "--to pdvc" in command:
            assert CliRunner().invoke(cli, shlex.split(command)[1:]).exit_code == 0
    lines = (workplace / "bmt/annotations/val_2.csv").read_text().splitlines()
    assert lines[0].split("\t") == [
        "video_id", "caption", "start", "end", "duration", "phase", "idx",
    ]  # fmt: skip
    assert [line.split("\t")[-1] for line in lines[1:]] == ["0", "1", "2"]
    captions = json.loads((workplace / "pdvc/annotations/train_modified.json").read_text())
    assert set(captions) == {clip.key for clip in ANET[:4]}
    config = (workplace / "pdvc/pdvc.yml").read_text()
    assert "train_modified.json" in config and "val_1.json" in config
