"""Many videos in one run: it does not grow, and leaves nothing behind, bad videos or not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc"),
]


def soak(folder: Path, count: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.extraction.soak_driver", str(folder), str(count)],
        capture_output=True,
        text=True,
        timeout=7000,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    used = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(used, dict)
    assert used["done"] + used["failed"] == count
    assert used["failed"] == 3 * (count // 10)
    assert used["after"] == used["before"]  # descriptors, threads, names in /dev/shm
    assert used["children"] == []
    assert used["left"] == [
        *("f.h5", "f.h5.report.json", "first", "first.h5", "first.h5.report.json", "videos")
    ]
    assert max(used["descriptors"]) < 60
    return used


def test_forty_videos(tmp_path: Path) -> None:
    soak(tmp_path, 40)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_two_thousand_videos(tmp_path: Path) -> None:
    used = soak(tmp_path, 2000)
    print(used)
    sizes = used["sizes_mb"]
    # The first tenth fills caches and arenas; after it nothing may grow with the videos.
    assert max(sizes[2:]) - sizes[2] < 30, sizes
