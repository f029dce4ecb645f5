"""What happens to a run when its disk, its videos or its workers do something unheard of."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.videos import make_video
from tests.extraction.kill_driver import workers_of
from tests.extraction.same import assert_same_store
from tspcli.core.progress import Reporter
from tspcli.encoders import Encoder, load_encoder
from tspcli.errors import StoreError
from tspcli.extraction import ExtractReport, VideoResult, extract
from tspcli.extraction.row_writer import WriterThread
from tspcli.extraction.task import Task
from tspcli.store import open_store
from tspcli.video import VideoFile

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("random", backbone="tiny", seed=1, device="cpu")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    make_video(folder / "long.mp4", n_frames=450, width=96, height=64)
    make_video(folder / "short.mp4", n_frames=60)
    make_video(folder / "other.mp4", n_frames=90)
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, which can be filled and made read-only."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs is not allowed here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


class Once(Reporter):
    """Does something to the run once some clips were encoded."""

    def __init__(self, act: Callable[[], object], after_clips: int = 4) -> None:
        self.act: Callable[[], object] | None = act
        self.after_clips = after_clips

    def advance(self, task: str, done: int, figures: Any = "") -> None:
        if self.act is not None and figures.n_clips >= self.after_clips:
            act, self.act = self.act, None
            act()


def run(
    videos: Path, out: Path, encoder: Encoder, act: Callable[[], object], **more: Any
) -> ExtractReport:
    options: dict[str, Any] = {"workers": 1, "batch_size": 2, "stride": 16, **more}
    return extract(videos, out, encoder=encoder, reporter=Once(act), **options)


def rows_of(store: Path) -> dict[str, np.ndarray]:
    with open_store(store) as opened:
        assert all(video.verify() for video in opened.values())
        return {key: video.rows for key, video in opened.items()}


def test_a_folder_that_becomes_read_only(videos: Path, small_disk: Path, encoder: Encoder) -> None:
    out = small_disk / "f.h5"
    with pytest.raises(StoreError, match="Read-only file system"):
        run(videos, out, encoder, lambda: _forced_read_only(small_disk))
    with pytest.raises(StoreError):
        run(videos, out, encoder, lambda: None)
    subprocess.run(["umount", "-l", str(small_disk)], check=True)
    run(videos, out, encoder, lambda: None)
    assert rows_of(out).keys() == {"long", "other", "short"}


def _forced_read_only(place: Path) -> None:
    # A file system with open files refuses to become read-only; a second mount of it does not.
    subprocess.run(["mount", "--bind", str(place), str(place)], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True)


class FillsUp(Reporter):
    """Leaves no room on a disk but some bytes, once so many videos are safe."""

    def __init__(self, disk: Path, after: int, spare_bytes: int) -> None:
        self.filler = disk / "filler"
        self.left = after
        self.spare_bytes = spare_bytes

    def result(self, result: VideoResult) -> None:
        self.left -= 1
        if self.left == 0:
            free = shutil.disk_usage(self.filler.parent).free
            self.filler.write_bytes(bytes(max(0, free - self.spare_bytes)))


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("spare_bytes", [0, 8192, 16384])
def test_a_disk_that_is_full_when_the_store_is_assembled(
    videos: Path, small_disk: Path, tmp_path: Path, encoder: Encoder, spare_bytes: int
) -> None:
    out = small_disk / "f.h5"
    options: dict[str, Any] = {"encoder": encoder, "workers": 1, "batch_size": 2, "stride": 4}
    reporter = FillsUp(small_disk, 3, spare_bytes)
    with pytest.raises(StoreError):
        extract(videos, out, reporter=reporter, **options)
    assert sorted(path.name for path in small_disk.iterdir()) == ["f.h5.parts", "filler"]
    assert len(list(out.with_name("f.h5.parts").glob("*.part"))) == 3
    # Nor does the command crash or tell of HDF5's troubles.
    words = ["extract", "-v", str(videos), "-o", str(out), "--weights", "random", "--stride", "4"]
    words += ["--backbone", "tiny", "--seed", "1", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "tspcli", *words], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 1 and "disk is full" in done.stderr, done
    assert "Traceback" not in done.stderr
    reporter.filler.unlink()
    report = extract(videos, out, **options)
    assert len(report.with_status("kept")) == 3
    extract(videos, tmp_path / "roomy.h5", **options)
    assert_same_store(out, tmp_path / "roomy.h5")


def test_a_folder_that_vanishes(videos: Path, tmp_path: Path, encoder: Encoder) -> None:
    out = tmp_path / "out" / "f.h5"
    with pytest.raises(StoreError, match="No such file") as caught:
        run(videos, out, encoder, lambda: shutil.rmtree(out.parent))
    assert caught.value.remedy
    run(videos, out, encoder, lambda: None)
    assert rows_of(out).keys() == {"long", "other", "short"}


@pytest.mark.parametrize("change", ["truncated", "replaced", "rewritten", "removed"])
def test_a_video_that_changes_while_it_is_read(
    videos: Path, tmp_path: Path, encoder: Encoder, change: str
) -> None:
    path = videos / "long.mp4"
    run(videos, tmp_path / "undisturbed.h5", encoder, lambda: None)
    whole = rows_of(tmp_path / "undisturbed.h5")
    new = make_video(tmp_path / "new.mp4", n_frames=300, width=96, height=64).read_bytes()

    def act() -> None:
        if change == "truncated":
            os.truncate(path, path.stat().st_size // 2)
        elif change == "replaced":
            (tmp_path / "new.mp4").replace(path)
        elif change == "rewritten":
            path.write_bytes(new)
        else:
            path.unlink()

    out = tmp_path / "f.h5"
    report = run(videos, out, encoder, act)
    ends = {video.key: video for video in report.videos}
    assert ends["short"].status == ends["other"].status == "done"
    found = rows_of(out)
    if change == "removed":
        # What was open stays readable to its end.
        np.testing.assert_array_equal(found["long"], whole["long"])
        return
    assert ends["long"].status == "failed" and ends["long"].reason == "damaged"
    assert "long" not in found
    again = run(videos, out, encoder, lambda: None)
    status = {video.key: video.status for video in again.videos}
    if change != "truncated":
        assert status == {"long": "done", "short": "kept", "other": "kept"}
        assert len(rows_of(out)["long"]) < len(whole["long"])


def test_a_video_that_is_replaced_before_its_first_frame_is_taken(
    videos: Path, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows would else be told to be those of the new file, and never be computed again."""
    new = make_video(tmp_path / "new.mp4", n_frames=300, width=96, height=64)
    real = Task.open_sink

    def open_sink(self: Task, writer: WriterThread, file: VideoFile) -> object:
        if file.key == "long" and new.exists():
            new.replace(file.path)
        return real(self, writer, file)

    monkeypatch.setattr(Task, "open_sink", open_sink)
    report = run(videos, tmp_path / "f.h5", encoder, lambda: None)
    assert [(video.key, video.reason) for video in report.failed] == [("long", "damaged")]
    again = run(videos, tmp_path / "f.h5", encoder, lambda: None)
    assert {video.key: video.status for video in again.videos}["long"] == "done"


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_hangs_or_dies(
    videos: Path, tmp_path: Path, encoder: Encoder, number: signal.Signals
) -> None:
    run(videos, tmp_path / "undisturbed.h5", encoder, lambda: None)

    def act() -> None:
        before = workers_of(os.getpid())
        assert before
        for worker in before:
            os.kill(worker, number)

    report = run(videos, tmp_path / "f.h5", encoder, act, decode_timeout_s=3.0)
    assert not report.failed
    undisturbed = rows_of(tmp_path / "undisturbed.h5")
    for key, rows in rows_of(tmp_path / "f.h5").items():
        np.testing.assert_array_equal(rows, undisturbed[key])
    decoders = {video.key: video.decoder for video in report.videos}
    if number == signal.SIGKILL:
        # Somebody else's doing: the decoder gets another go.
        assert set(decoders.values()) == {"pyav"}
