"""Rows as others host them, compared with a store."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from tests.analysis.plotted import make_rows, make_store
from tests.builders.refusals import refused
from tspcli.cli.main import cli
from tspcli.errors import StoreError
from tspcli.store import open_store
from tspcli.store.hosted import open_hosted

ROWS = {"v_a": make_rows(40, 2.0), "v_b": make_rows(25, 1.0)}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return make_store(tmp_path / "mine.h5", ROWS)


def compared(mine: Path, other: Path, *words: str) -> dict:
    command = ["compare", str(mine), str(other), "--json", *words]
    result = CliRunner().invoke(cli, command, standalone_mode=False)
    assert result.exception is None, result.exception
    return {"code": result.return_value, **json.loads(result.stdout)}


def save(folder: Path, form: str) -> None:
    """One file per video in one of the forms in which features are hosted."""
    folder.mkdir()
    for name, rows in ROWS.items():
        half = rows.astype(np.float16)
        if form == "npy":
            np.save(folder / f"{name}.npy", rows)
        elif form == "npy of the file":
            np.save(folder / f"{name}.mp4.npy", half)
        elif form == "transposed":
            np.save(folder / f"{name}.npy", rows.T[None])
        elif form == "npz":
            np.savez(folder / f"{name}.npz", features=half, other=np.zeros(3))
        elif form == "pt":
            torch.save(torch.from_numpy(rows).bfloat16(), folder / f"{name[2:]}.pt")
        elif form == "a row less":
            np.save(folder / f"{name}.npy", rows[:-1])
        else:
            (folder / f"{name}.pkl").write_bytes(pickle.dumps(rows))


@pytest.mark.parametrize(
    "form",
    ["npy", "npy of the file", "transposed", "npz", "pt", "pkl", "a row less"],
)
def test_folders(mine: Path, tmp_path: Path, form: str) -> None:
    save(tmp_path / "hosted", form)
    found = compared(mine, tmp_path / "hosted", "--expect-same")
    assert (found["verdict"], found["counts"], found["code"]) == ("same", {"same": 2}, 0)
    assert found["b"] == str(tmp_path / "hosted")


@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".npz"])
def test_a_file_of_many_videos(mine: Path, tmp_path: Path, suffix: str) -> None:
    rows = {**ROWS, "v_c": make_rows(5, 1.0)}
    path = tmp_path / f"all{suffix}"
    if suffix == ".pth":
        torch.save({name: torch.from_numpy(array) for name, array in rows.items()}, path)
    elif suffix == ".pkl":
        path.write_bytes(pickle.dumps(rows))
    else:
        np.savez(path, **rows)
    found = compared(mine, path, "--expect-same")
    assert found["counts"] == {"same": 2}
    # A video that only they have is counted, so the two are not the same.
    assert found["only_b"] == ["v_c"] and found["code"] == 1


def test_a_file_of_one_video(mine: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "v_b.npy", ROWS["v_b"])
    found = compared(mine, tmp_path / "v_b.npy")
    assert [video["key"] for video in found["videos"]] == ["v_b"]
    assert found["only_a"] == ["v_a"] and found["verdict"] == "same"
    alone = make_store(tmp_path / "alone.h5", {"v_b": ROWS["v_b"]})
    np.save(tmp_path / "features.npy", np.roll(ROWS["v_b"], 3, axis=0))
    assert compared(alone, tmp_path / "features.npy")["verdict"] == "shifted"


def test_other_rows_are_other_weights(mine: Path, tmp_path: Path) -> None:
    wide = {name: np.zeros((7, 3), np.float32) + 1 for name in ROWS}
    np.savez(tmp_path / "all.npz", **wide)
    found = compared(mine, tmp_path / "all.npz")
    assert found["verdict"] == "other weights" and found["videos"][0]["dims"][1] == 3


class Evil:
    """A class that runs code as it is loaded."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("ran"),))


@pytest.mark.parametrize("suffix", [".pkl", ".npy", ".pt"])
def test_nothing_is_run(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"v_a{suffix}"
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps({"v_a": Evil()}))
    elif suffix == ".npy":
        np.save(path, np.array([Evil()], dtype=object), allow_pickle=True)
    else:
        torch.save({"v_a": Evil()}, path)
    result = CliRunner().invoke(cli, ["compare", str(mine), str(path)], standalone_mode=False)
    assert result.exception is not None and not (tmp_path / "ran").exists()


def test_what_is_refused(mine: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "v_a.npz", rgb=ROWS["v_a"], flow=ROWS["v_a"])
    (tmp_path / "v_a.npy").write_bytes(b"nothing")
    np.save(tmp_path / "v_b.npy", np.zeros((4, 5, 6)))
    with open_store(mine) as store:
        for name in ("empty", "v_a.npz", "v_a.npy", "v_b.npy"):
            with (
                refused(StoreError, path=tmp_path / name),
                open_hosted(tmp_path / name, store, pickle.loads),
            ):
                pass
