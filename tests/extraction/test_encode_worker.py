"""What a worker's watchdog takes for progress."""

from __future__ import annotations

from collections.abc import Callable

from tspcli.extraction import ExtractConfig
from tspcli.extraction.encode_worker import CLIP_S, STUCK_S, Watchdog, stuck_after_s


def test_the_limit_grows_with_the_batch() -> None:
    assert stuck_after_s(ExtractConfig(batch_size=100)) == STUCK_S + 100 * CLIP_S
    assert stuck_after_s(ExtractConfig()) == STUCK_S + 16 * CLIP_S


def test_what_counts_as_progress() -> None:
    said: list[str] = []
    dog = Watchdog(3.0, said.append)

    def pass_s(seconds: int, *signs: Callable[[], None]) -> None:
        for _ in range(seconds):
            for sign in signs:
                sign()
            dog.step()

    pass_s(9)
    assert not said, "nobody is at work yet"
    dog.watch(True)
    pass_s(9, dog.engine_tick)
    assert not said, "there is no work"
    dog.frames_taken()
    pass_s(9, dog.batch_done)
    assert not said, "both wait for the encoder, which finishes batches"
    pass_s(2, dog.engine_tick)
    dog.frames_returned()
    pass_s(9, dog.engine_tick)
    assert not said, "what was taken is done"
    pass_s(2)
    dog.engine_tick()
    pass_s(2)
    assert not said
    pass_s(2)
    assert len(said) == 1 and "3 s" in said[0]

    dog.watch(True)
    dog.frames_taken()
    pass_s(3, dog.engine_tick)
    assert not said[1:]
    pass_s(1, dog.engine_tick)
    assert said[1:], "the engine's thread waits for frames that are not made ready"
