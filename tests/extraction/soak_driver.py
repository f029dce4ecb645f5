"""One run over many short videos, some of them bad; prints what it used. Started as a program."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from contextlib import suppress
from pathlib import Path

import torch

from tests.builders.resident import resident_mb
from tests.builders.videos import make_video
from tspcli.core.progress import Reporter
from tspcli.encoders import load_encoder
from tspcli.extraction import ExtractReport, VideoResult, extract

torch.set_num_threads(1)


class Watch(Reporter):
    """Notes the process's size as videos end."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.n_ended = 0
        self.sizes_mb: list[float] = []
        self.descriptors: list[int] = []

    def result(self, result: VideoResult) -> None:
        self.n_ended += 1
        if self.n_ended % self.every == 0:
            self.sizes_mb.append(round(resident_mb(os.getpid(), descendants=False), 1))
            self.descriptors.append(n_descriptors())


def prepare(folder: Path, count: int) -> None:
    """Half a second each; of every ten one is cut short, one is no video and one is empty."""
    folder.mkdir()
    whole = make_video(folder / "whole.mp4", n_frames=20).read_bytes()
    for number in range(count):
        bad = {7: whole[: len(whole) // 2], 8: b"no video", 9: b""}
        (folder / f"v{number:05}.mp4").write_bytes(bad.get(number % 10, whole))
    (folder / "whole.mp4").unlink()


def shared_memory() -> list[str]:
    """Names in /dev/shm that no other process uses: others may run beside this one."""
    mapped = ""
    for maps in Path("/proc").glob("[0-9]*/maps"):
        if maps.parent.name != str(os.getpid()):
            with suppress(OSError):
                mapped += maps.read_text(errors="replace")
    return sorted(path.name for path in Path("/dev/shm").iterdir() if path.name not in mapped)


def n_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def main(folder: Path, count: int) -> None:
    prepare(folder / "videos", count)
    encoder = load_encoder("random", backbone="tiny", seed=1, device="cpu")
    # A small run first, so that everything that is loaded once is loaded.
    (folder / "first").mkdir()
    shutil.copy(folder / "videos" / "v00000.mp4", folder / "first")
    extract(folder / "first", folder / "first.h5", encoder=encoder, workers=2)
    before = (n_descriptors(), threading.active_count(), shared_memory())
    watch = Watch(max(1, count // 20))
    report: ExtractReport = extract(
        folder / "videos", folder / "f.h5", encoder=encoder, reporter=watch, workers=2
    )
    after = (n_descriptors(), threading.active_count(), shared_memory())
    children = [
        child
        for task in Path("/proc/self/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    print(
        json.dumps(
            {
                "done": len(report.with_status("done")),
                "failed": len(report.failed),
                "sizes_mb": watch.sizes_mb,
                "descriptors": watch.descriptors,
                "before": before,
                "after": after,
                "children": children,
                "left": sorted(path.name for path in folder.iterdir()),
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
