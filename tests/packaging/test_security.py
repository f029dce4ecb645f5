"""What comes from outside stays data: no code runs, no name leaves its folder, no shell starts."""

from __future__ import annotations

import ast
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tspcli
from tests.builders.archives import use_index, use_no_index, write_wheel
from tests.builders.damaged_stores import small_store, without_index
from tests.builders.videos import make_video
from tspcli.core.run_dir import one_writer
from tspcli.core.video_names import store_key
from tspcli.encoders.checkpoints import load_checkpoint
from tspcli.errors import CheckpointError, DownloadError, StoreError, TrainingError, TspError
from tspcli.extraction import extract
from tspcli.localization.localizer import load_localizer
from tspcli.store import open_store
from tspcli.store.parts import part_name
from tspcli.video.inputs import list_videos

pytestmark = pytest.mark.faults
SOURCES = sorted(Path(tspcli.__file__).parent.rglob("*.py"))


class Payload:
    """Unpickled, it writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.target),))


def as_torch(content: Any, path: Path, zipped: bool = True) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)


CARRIERS = {
    "official": lambda p, path: as_torch({"model": {"fc.weight": torch.ones(1)}, "args": p}, path),
    "legacy": lambda p, path: as_torch({"model": p}, path, zipped=False),
    "state of a run": lambda p, path: as_torch(
        {"model": {"fc.weight": torch.ones(1)}, "run": {"version": 1, "state": p}}, path
    ),
    "optimizer": lambda p, path: as_torch({"model": {"a": torch.ones(1)}, "optimizer": p}, path),
    "numpy pickle": lambda p, path: path.write_bytes(pickle.dumps({"params": p}, protocol=4)),
    "array of objects": lambda p, path: path.write_bytes(
        pickle.dumps({"params": np.array([p], dtype=object)}, protocol=4)
    ),
    "localizer": lambda p, path: as_torch({"format": "tspcli-localizer", "config": p}, path),
}


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("load", [load_checkpoint, load_localizer])
def test_checkpoints_that_carry_code_are_refused(tmp_path: Path, carrier: str, load: Any) -> None:
    written = tmp_path / "written"
    path = tmp_path / "evil.pth"
    CARRIERS[carrier](Payload(written), path)
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert caught.value.remedy
    assert not written.exists()


def test_the_payload_would_work(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "written")))
    assert (tmp_path / "written").exists()


def test_a_run_with_code_in_its_state_is_not_resumed(tmp_path: Path) -> None:
    from tspcli.pretraining.training_log import read_results

    run = tmp_path / "run"
    run.mkdir()
    CARRIERS["state of a run"](Payload(tmp_path / "written"), run / "last.pth")
    with pytest.raises(CheckpointError):
        load_checkpoint(run / "last.pth")
    (run / "results.jsonl").write_bytes(pickle.dumps(Payload(tmp_path / "written")))
    with pytest.raises(TrainingError):
        read_results(run)
    assert not (tmp_path / "written").exists()


def test_a_download_is_verified_before_it_has_its_name(tmp_path: Path) -> None:
    from tspcli.fetch.url import download

    source = tmp_path / "evil.pth"
    CARRIERS["official"](Payload(tmp_path / "written"), source)
    target = tmp_path / "weights" / "good.pth"
    with pytest.raises(DownloadError):
        download(source.as_uri(), target, "0" * 64)
    assert not target.exists() and list(target.parent.iterdir()) == []
    assert not (tmp_path / "written").exists()


STRANGE = [
    b"-rf.mp4",
    b"--out.mp4",
    b".hidden.mp4",
    b"a\nb.mp4",
    b"\x1b[31mred\x07.mp4",
    b"..mp4",
    b"\xff\xfe.mp4",
    b"%2e%2e%2f.mp4",
    b"$(touch x);`touch y`|touch z.mp4",
    b"concat:a|b.mp4",
    b"x" * 251 + b".mp4",
    "\u202egnp.mp4".encode(),
]


def test_strange_names_are_only_names(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / "videos")
    (tmp_path / "videos").mkdir()
    whole = make_video(tmp_path / "whole.mp4", n_frames=20).read_bytes()
    for name in STRANGE:
        with open(os.path.join(folder, name), "wb") as file:  # noqa: PTH118 (names in bytes)
            file.write(whole)
    files = [Path(os.fsdecode(os.path.join(folder, name))) for name in STRANGE]  # noqa: PTH118 (names in bytes)
    out = tmp_path / "out" / "f.h5"
    report = extract(files, out, weights="random", backbone="tiny", seed=1, workers=1)
    assert len(report.with_status("done")) == len(STRANGE), report.failed
    assert sorted(path.name for path in out.parent.iterdir()) == ["f.h5", "f.h5.report.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "videos", "whole.mp4"]
    with open_store(out) as store:
        assert len(store) == len(STRANGE)
        for key in store:
            key.encode()
            assert not any(ord(c) < 32 for c in key) and "/" not in key
            assert store[key].verify()
    again = extract(files, out, weights="random", backbone="tiny", seed=1, workers=1)
    assert len(again.with_status("kept")) == len(STRANGE)


def test_a_name_of_three_hundred_letters_is_a_missing_video(tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    make_video(tmp_path / "v.mp4", n_frames=20)
    listing.write_text(f"{'x' * 300}.mp4\nv.mp4\n")
    report = extract(listing, tmp_path / "f.h5", weights="random", backbone="tiny", seed=1)
    ends = {video.key[:1]: video for video in report.videos}
    assert ends["v"].status == "done"
    assert ends["x"].reason in ("missing", "unreadable")


@pytest.mark.parametrize("text", ["/etc/passwd", "../../x", "..", ".", "a\0b", "\ud800", "\r\n"])
def test_keys_are_names_and_no_paths(text: str) -> None:
    key = store_key(text)
    assert "/" not in key and "\0" not in key and key not in (".", "..")
    key.encode()
    assert part_name(key).endswith(".part") and "/" not in part_name(key)


def test_lists_cannot_smuggle_in_options(tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text("--overwrite\n; rm x\n")
    assert [video.path.name for video in list_videos(listing)] == ["--overwrite", "; rm x"]


def test_an_archive_cannot_write_outside_of_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tspcli.fetch.package_index import fetch_from_package

    (tmp_path / "index").mkdir()
    use_index(monkeypatch, tmp_path / "index")
    files = {"pkg/../../escaped": b"x", "pkg/good": b"y"}
    sha256 = write_wheel(tmp_path / "index", "demo_pkg", "1.0", files)
    cache = tmp_path / "cache"
    found = fetch_from_package("demo-pkg==1.0", sha256, {"pkg/good": None}, cache)
    assert found["pkg/good"].read_bytes() == b"y"
    assert not list(tmp_path.rglob("escaped"))


def calls() -> list[tuple[str, ast.Call]]:
    return [
        (f"{path.name}:{node.lineno}", node)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]


def test_no_shell_is_ever_involved() -> None:
    forbidden = {
        *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
        *("eval", "exec", "pickle.load", "pickle.loads", "marshal.loads", "shelve.open"),
        *("tempfile.mktemp", "yaml.load", "np.load", "numpy.load", "torch.jit.load"),
        *("torch.hub.load", "torch.hub.load_state_dict_from_url", "pickle.Unpickler"),
    }
    found = []
    for where, call in calls():
        name = ast.unparse(call.func)
        plain_arrays = any(ast.unparse(k) == "allow_pickle=False" for k in call.keywords)
        if name in ("np.load", "numpy.load") and plain_arrays:
            continue
        if name in forbidden or name.startswith(("os.spawn", "commands.")):
            found.append(f"{where}: {name}")
        if any(k.arg == "shell" and ast.unparse(k.value) != "False" for k in call.keywords):
            found.append(f"{where}: {name} with a shell")
        if name.startswith("subprocess.") and call.args and isinstance(call.args[0], ast.Constant):
            found.append(f"{where}: {name} of one string")
    assert found == []


def test_nothing_is_run_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A downloaded folder may hold a signal.py; working in it must not run that."""
    from tspcli.fetch.package_index import fetch_from_package
    from tspcli.store.integrity import examine_store
    from tspcli.video.durations import read_durations

    video = make_video(tmp_path / "v.mp4", n_frames=20)
    store = without_index(small_store(tmp_path / "f.h5"))
    here, trace = tmp_path / "here", tmp_path / "ran"
    (here / "pip").mkdir(parents=True)
    for name in ("signal", "importlib", "resource", "runpy", "json", "pip/__init__"):
        (here / f"{name}.py").write_text(f"open({str(trace)!r}, 'a').write({name!r})\n")
    (here / "pip" / "__main__.py").touch()
    monkeypatch.chdir(here)
    monkeypatch.setattr("sys.path", [place for place in sys.path if place])
    use_no_index(monkeypatch, tmp_path)
    assert read_durations([video]) != [None]
    assert examine_store(store).is_whole
    with pytest.raises(DownloadError):
        fetch_from_package("nothing==1.0", "0" * 64, {"a": None}, tmp_path / "cache")
    assert not trace.exists(), trace.read_text()


class Numbers:
    """What loader processes read in place of clips."""

    def __getitem__(self, number: int) -> int:
        return number

    def collate(self, numbers: list[int]) -> int:
        return sum(numbers)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no PYTHONSAFEPATH")
def test_loader_processes_run_nothing_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tspcli.pretraining.loader import BatchFeed

    here, trace = tmp_path / "here", tmp_path / "ran"
    here.mkdir()
    for name in ("signal", "runpy", "socket"):
        (here / f"{name}.py").write_text(f"open({str(trace)!r}, 'a').write({name!r})\n")
    monkeypatch.chdir(here)
    monkeypatch.setattr("sys.path", [place for place in sys.path if place])
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    # Numbers in place of clips: what is read does not matter here.
    feed = BatchFeed(Numbers(), workers=1)  # type: ignore[arg-type]
    assert list(feed([[1, 2], [3, 4]])) == [3, 7]  # type: ignore[comparison-overlap, list-item]
    feed.close()
    assert not trace.exists(), trace.read_text()
    assert "PYTHONSAFEPATH" not in os.environ, "commands of the user's start from here too"


def test_torch_loads_weights_alone() -> None:
    loads = [(where, call) for where, call in calls() if ast.unparse(call.func) == "torch.load"]
    assert loads
    for where, call in loads:
        given = {k.arg: ast.unparse(k.value) for k in call.keywords}
        assert given.get("weights_only") == "True", where


def test_there_is_one_unpickler_and_it_is_restricted() -> None:
    bases = {
        (path.name, node.name): [ast.unparse(base) for base in node.bases]
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    found = [where for where, names in bases.items() if any("Unpickler" in n for n in names)]
    assert found == [("weight_files.py", "Restricted")]


def test_archives_are_never_unpacked_whole() -> None:
    names = {ast.unparse(call.func).rpartition(".")[2] for _, call in calls()}
    assert not names & {"extractall", "unpack_archive"}


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "f.h5.lock").symlink_to(victim)
    with pytest.raises(StoreError), one_writer(tmp_path / "f.h5"):
        pass
    assert victim.read_text() == "precious"


def test_a_link_in_place_of_the_store_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "f.h5").symlink_to(victim)
    small_store(tmp_path / "f.h5")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "f.h5").is_symlink()


def test_links_inside_of_a_store_lead_nowhere(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["rows"] = np.ones((2, 2), np.float32)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["link"] = h5py.ExternalLink("secret.h5", "/rows")
        file.create_dataset("raw", (1, 4), "f4", external=[(str(tmp_path / "secret.h5"), 0, 16)])
    with open_store(tmp_path / "f.h5") as store:
        for key in ("link", "raw"):
            with pytest.raises((TspError, KeyError)):
                _ = store[key].rows
