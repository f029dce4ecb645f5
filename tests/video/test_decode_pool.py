"""The pool: what comes out of it, and what hanging, crashing and dying does to it."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.builders.videos import read_number
from tests.builders.waiting import wait_until
from tests.video.pools import expected, make_pool_videos, pool_of
from tspcli.core import child_process as process
from tspcli.errors import UsageError
from tspcli.sampling.pixels import FrameSpec, ResizeSpec
from tspcli.video import (
    DecodePool,
    Event,
    Failed,
    Finished,
    Frames,
    Idle,
    Opened,
    Restarted,
    VideoFile,
    Woken,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[VideoFile]:
    return make_pool_videos(tmp_path_factory.mktemp("videos"))


def consume(pool: DecodePool) -> tuple[dict[str, list[tuple[int, int]]], dict[str, Event]]:
    """What came of each video as a consumer keeps it: (tick, number read) pairs; how it ended."""
    kept: dict[str, list[tuple[int, int]]] = {}
    ends: dict[str, Event] = {}
    with pool:
        for event in pool:
            key = event.job.key
            assert key not in ends
            if isinstance(event, (Opened, Restarted)):
                kept[key] = []
            elif isinstance(event, Frames):
                assert event.pixels.dtype == np.uint8
                for ticks, rgb in zip(event.ticks, event.pixels, strict=True):
                    kept[key] += [(tick, read_number(rgb)) for tick in ticks]
                event.release()
            else:
                ends[key] = event
    return kept, ends


def test_all_frames_of_all_videos_come_once_and_in_order(videos: list[VideoFile]) -> None:
    kept, ends = consume(pool_of(videos))
    for key, n_frames in zip(("v0", "v1", "v2", "v3"), (240, 150, 60, 9), strict=True):
        assert kept[key] == expected(n_frames)
        end = ends[key]
        assert isinstance(end, Finished)
        assert (end.n_ticks, end.n_frames, end.decoder) == (n_frames, n_frames, "pyav")
        assert (end.start_s, end.end_s) == (0, Fraction(n_frames, 30))
        assert end.warnings == ()


def test_videos_start_in_the_given_order(videos: list[VideoFile]) -> None:
    with pool_of(videos[::-1], workers=1) as pool:
        opened = []
        for event in pool:
            if isinstance(event, Opened):
                opened.append(event.job)
            elif isinstance(event, Frames):
                event.release()
    assert opened == videos[::-1]


def test_float_frames_and_crops(videos: list[VideoFile]) -> None:
    spec = FrameSpec(ResizeSpec(short_side=96), crop=(90, 100), dtype="float32")
    with pool_of(videos[:1], spec=spec) as pool:
        for event in pool:
            if isinstance(event, Frames):
                assert event.pixels.shape[1:] == (90, 100, 3)
                assert event.pixels.dtype == np.float32
                assert (event.pixels % 1 != 0).any()
                event.release()


def test_a_frame_larger_than_a_chunk_gets_its_own(videos: list[VideoFile]) -> None:
    kept, _ = consume(pool_of(videos[1:], chunk_bytes=1000))
    assert kept["v1"] == expected(150)
    assert kept["v2"] == expected(60)


def test_no_more_than_the_slots_is_decoded_ahead(videos: list[VideoFile]) -> None:
    with pool_of(videos[:1], slots=2, workers=1) as pool:
        held: list[Frames] = []
        copies: list[npt.NDArray[np.uint8]] = []
        events = iter(pool)
        for event in events:
            if isinstance(event, Frames):
                held.append(event)
                copies.append(event.pixels.copy())
            if len(held) == 2:
                break
        # The worker waits for its connection to become readable, and what is held may not change.
        wait_until(lambda: is_asleep(pool.pids[0]))
        assert all((h.pixels == c).all() for h, c in zip(held, copies, strict=True))


@pytest.mark.parametrize("timeout_s", [math.inf, 1e12])
def test_the_limit_may_be_infinite(videos: list[VideoFile], timeout_s: float) -> None:
    kept, _ = consume(pool_of(videos[3:], timeout_s=timeout_s))
    assert kept["v3"] == expected(9)


def test_a_consumer_slower_than_the_time_limit_is_no_hang(videos: list[VideoFile]) -> None:
    n_chunks = 0
    with pool_of(videos[:1], slots=1, workers=1, timeout_s=2.0) as pool:
        for event in pool:
            assert not isinstance(event, (Failed, Restarted))
            if isinstance(event, Frames):
                n_chunks += 1
                if n_chunks < 2:
                    time.sleep(4.0)
                event.release()
    assert n_chunks == 6


def test_a_decoder_slower_than_the_limit_but_alive_is_no_hang(videos: list[VideoFile]) -> None:
    kept, ends = consume(pool_of(videos[:1], decoder="slow", timeout_s=8.0))
    assert isinstance(ends["v0"], Finished)
    assert kept["v0"] == expected(240)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("hanging", "timeout"),
        ("hanging_with_the_lock", "timeout"),
        ("hanging_with_threads", "timeout"),
        ("stopping", "timeout"),
        ("crashing", "crashed"),
        ("exiting", "crashed"),
        ("raising", "crashed"),
        ("hungry", "out-of-memory"),
    ],
)
def test_a_fault_ends_as_its_reason_and_the_rest_goes_on(
    videos: list[VideoFile], fault: str, reason: str
) -> None:
    # Only a hang has to be waited for; on a busy machine everything else may take long.
    timeout_s = 3.0 if reason == "timeout" else 60.0
    limit_bytes = 1 << 29 if fault == "hungry" else 1 << 30
    # Only the first two videos have a frame 100.
    _, ends = consume(
        pool_of(
            videos,
            decoder=fault,
            timeout_s=timeout_s,
            memory_limit_bytes=limit_bytes,
            grace_s=1.0,
        )
    )
    for key in ("v0", "v1"):
        end = ends[key]
        assert isinstance(end, Failed)
        assert end.error.reason == reason
        assert key in str(end.error)
    assert isinstance(ends["v2"], Finished)
    assert isinstance(ends["v3"], Finished)


def test_the_import_of_a_decoder_is_not_the_videos_time(videos: list[VideoFile]) -> None:
    _, ends = consume(pool_of(videos[:1], decoder="late", timeout_s=2.0, grace_s=0.5))
    assert isinstance(ends["v0"], Finished)


def test_failures_in_the_middle_of_a_chunk_cost_the_worker_no_slot(
    videos: list[VideoFile],
) -> None:
    """Frame 100, at which it fails, is the eleventh of a chunk of 20."""
    long = videos[0].path
    files = [VideoFile(long, f"bad{i}") for i in range(5)] + [VideoFile(videos[2].path, "good")]
    _, ends = consume(pool_of(files, decoder="raising", workers=1, slots=2, timeout_s=10.0))
    reasons = {key: end.error.reason for key, end in ends.items() if isinstance(end, Failed)}
    assert reasons == {f"bad{i}": "crashed" for i in range(5)}
    assert isinstance(ends["good"], Finished)


@pytest.mark.parametrize("fault", ["hanging", "crashing", "raising"])
def test_the_next_decoder_takes_over_from_the_start(videos: list[VideoFile], fault: str) -> None:
    seen: list[Event] = []
    pool = pool_of(videos, decoder=(fault, "pyav"), timeout_s=3.0 if fault == "hanging" else 60.0)
    kept: dict[str, list[int]] = {}
    with pool:
        for event in pool:
            if isinstance(event, (Opened, Restarted)):
                kept[event.job.key] = []
            if isinstance(event, Frames):
                kept[event.job.key] += [tick for ticks in event.ticks for tick in ticks]
                event.release()
            else:
                seen.append(event)
    restarted = [event for event in seen if isinstance(event, Restarted)]
    assert {event.job.key for event in restarted} == {"v0", "v1"}
    assert all(event.decoder == "pyav" for event in restarted)
    assert all(fault in event.why for event in restarted)
    ends = {event.job.key: event for event in seen if isinstance(event, Finished)}
    assert {key: end.decoder for key, end in ends.items()} == {
        "v0": "pyav",
        "v1": "pyav",
        "v2": fault,
        "v3": fault,
    }
    assert kept["v0"] == list(range(0, 240, 2))


def test_what_decoders_write_is_kept_from_the_screen_and_bounded(
    videos: list[VideoFile], capfd: pytest.CaptureFixture[str]
) -> None:
    _, ends = consume(pool_of(videos[:1], decoder="talkative"))
    assert isinstance(ends["v0"], Finished)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_a_killed_worker_is_replaced(videos: list[VideoFile]) -> None:
    ends: list[Event] = []
    with pool_of(videos, workers=1, decoder=("pyav", "slow"), slots=1) as pool:
        killed = False
        for event in pool:
            if isinstance(event, Frames):
                if not killed:
                    os.kill(pool.pids[0], signal.SIGKILL)
                    killed = True
                event.release()
            elif isinstance(event, (Finished, Failed, Restarted)):
                ends.append(event)
    assert isinstance(ends[0], Restarted)
    assert "SIGKILL" in ends[0].why
    assert [type(event) for event in ends[1:]] == [Finished] * 4


def test_a_worker_that_died_idle_does_not_count_against_its_next_video(
    videos: list[VideoFile],
) -> None:
    ends: list[Event] = []
    with pool_of(videos[2:], workers=1, decoder=("pyav", "slow")) as pool:
        for event in pool:
            if isinstance(event, Frames):
                event.release()
            elif isinstance(event, (Finished, Failed, Restarted)):
                ends.append(event)
                if len(ends) == 1:
                    [pid] = pool.pids
                    os.kill(pid, signal.SIGKILL)
                    wait_until(lambda pid=pid: not is_alive(pid))
    assert [type(event) for event in ends] == [Finished, Finished]


def test_closing_from_another_thread_ends_it_at_once(videos: list[VideoFile]) -> None:
    pool = pool_of(videos[:2], decoder="hanging", timeout_s=60.0)
    ended = threading.Event()

    def iterate() -> None:
        for event in pool:
            if isinstance(event, Frames):
                event.release()
        ended.set()

    thread = threading.Thread(target=iterate)
    thread.start()
    wait_until(lambda: len(pool.pids) == 2)
    pids = pool.pids
    pool.close()
    assert ended.wait(timeout=5)
    thread.join()
    assert not any(is_alive(pid) for pid in pids)
    pool.close()


def test_views_outlive_the_pool(videos: list[VideoFile]) -> None:
    with pool_of(videos[:1]) as pool:
        frames = next(event for event in pool if isinstance(event, Frames))
    assert read_number(frames.pixels[3]) == frames.ticks[3][0]
    frames.release()


def test_nothing_is_left_after_many_pools(videos: list[VideoFile]) -> None:
    def left() -> tuple[int, list[Path]]:
        # Semaphores of other programs come and go there; Python takes their names away at once.
        named = (path for path in Path("/dev/shm").iterdir() if not path.name.startswith("sem."))
        return len(list(Path("/proc/self/fd").iterdir())), sorted(named)

    consume(pool_of(videos[3:]))
    before = left()
    for _ in range(3):
        consume(pool_of(videos[3:]))
        with pool_of(videos) as pool:
            next(iter(pool))
        pool_of(videos).close()
    assert left() == before


DRIVER = """
import sys
from tests.video.fake_decoders import FAKES
from tspcli.sampling.pixels import FrameSpec, ResizeSpec
from tspcli.sampling import Sampling
from tspcli.video import DecodePool, Frames, list_videos
pool = DecodePool(list_videos(sys.argv[1]), sampling=Sampling(), workers=2, timeout_s=600.0,
                  spec=FrameSpec(ResizeSpec(48, 64)),
                  decoder=FAKES.get(sys.argv[2], sys.argv[2]), chunk_bytes=100_000)
for event in pool:
    if isinstance(event, Frames):
        event.release()
    if len(pool.pids) == 2 and isinstance(event, Frames):
        print(*pool.pids, flush=True)
"""


@pytest.mark.parametrize("decoder", ["hanging", "hanging_with_the_lock"])
def test_no_worker_survives_its_parent(videos: list[VideoFile], decoder: str) -> None:
    folder = str(Path(videos[0].path).parent)
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, folder, decoder],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        # Both have given all frames before the one at which they hang.
        for pid in pids:
            wait_until(lambda pid=pid: is_asleep(pid))
        parent.kill()
    assert len(pids) == 2
    wait_until(lambda: not any(is_alive(pid) for pid in pids))


def test_it_needs_no_main_guard_and_loads_no_torch(videos: list[VideoFile], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    driver = DRIVER.replace("import sys\nfrom tests.video.fake_decoders import FAKES\n", "", 1)
    driver = driver.replace("FAKES.get(sys.argv[2], sys.argv[2])", "sys.argv[2]")
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "print('started')\n" + driver + "print('ended')\n"
        "assert 'torch' not in sys.modules and 'av' not in sys.modules\n"
    )
    folder = str(Path(videos[0].path).parent)
    done = subprocess.run(
        [sys.executable, str(script), folder, "pyav"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.count("started") == 1
    assert done.stdout.strip().endswith("ended")
    code = (
        "import tspcli.video.decode_worker, tspcli.video.decoders.pyav_source,"
        "tspcli.video.decoders.decord_source, tspcli.video.resize, sys;"
        " assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_settings_that_make_no_sense_are_refused(videos: list[VideoFile]) -> None:
    for value, options in (("nothing", {"decoder": "nothing"}), (0, {"workers": 0})):
        with pytest.raises(UsageError) as caught:
            pool_of(videos, **options)
        assert caught.value.data["value"] == value


def test_a_pool_held_open_takes_videos_until_it_is_told_to_finish(videos: list[VideoFile]) -> None:
    told: list[str] = []
    late = [videos[1], videos[3]]
    with pool_of(videos[:1], hold_open=True) as pool:
        for event in pool.live():
            if isinstance(event, Frames):
                event.release()
            elif isinstance(event, Finished):
                told.append(event.job.key)
            elif isinstance(event, Idle):
                told.append("idle")
                if late:
                    pool.add(late.pop(0))
                else:
                    pool.finish()
    assert told == ["v0", "idle", "v1", "idle", "v3", "idle"]


def test_a_pool_that_waits_is_woken_and_its_idle_workers_live(videos: list[VideoFile]) -> None:
    pids: list[list[int]] = []
    with pool_of(videos[3:], hold_open=True, timeout_s=0.5, grace_s=0.2) as pool:
        for event in pool.live():
            if isinstance(event, Frames):
                event.release()
            elif isinstance(event, Idle):
                pids.append(pool.pids)
                # Longer than a busy worker may be silent.
                threading.Timer(1.5, pool.wake).start()
            elif isinstance(event, Woken):
                pids.append(pool.pids)
                pool.finish()
    assert pids[0] and pids[0] == pids[1]


def is_asleep(pid: int) -> bool:
    """Whether a process used no processor time for a fifth of a second."""
    before = cpu_ticks(pid)
    time.sleep(0.2)
    return cpu_ticks(pid) == before


def cpu_ticks(pid: int) -> int:
    """Processor time that a process took, in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


def test_memory_is_shared_out_as_far_as_this_process_may_use_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gib = 1 << 30
    for available, workers, share in (
        (6 * gib, 2, 2 * gib), (2 * gib, 4, gib), (64 * gib, 2, 4 * gib), (None, 2, 4 * gib),
    ):  # fmt: skip
        monkeypatch.setattr(process, "memory_bytes", lambda available=available: available)
        assert process.default_memory_limit_bytes(workers) == share
