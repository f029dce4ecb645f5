"""Signs of life of an engine that another process waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from tspcli.extraction.decoding import EventSource
from tspcli.extraction.settings import ExtractConfig
from tspcli.video import Event, Idle, Woken

BEAT_S = 1.0
STUCK_S = 600.0
"""How long an engine that has work may finish no batch and take up no frames, ..."""
CLIP_S = 30.0
"""... and this for each clip of a batch, whose size the user may choose, on whatever processor."""
_CLIPS = 16
"""Clips that count for it where the device chooses: a series, the most that a CPU does at once."""


def stuck_after_s(config: ExtractConfig) -> float:
    """After how many seconds without a sign an engine counts as stuck."""
    return STUCK_S + CLIP_S * (config.batch_size or _CLIPS)


class Pulse:
    """Beats, and notices an engine that does not get on.

    A process that is stopped beats no more, which whoever waits for it notices. One that hangs
    inside the encoder goes on beating, but its threads come by no more. An engine without work is
    not stuck: it looks for some several times a second. Time is counted in beats, so that who was
    stopped together with everyone else, by Ctrl-Z, is not blamed for that time.

    Args:
        limit_s: After how long it is stuck.
        beat: Called at every beat.
        stuck: Called once, with the reason.
    """

    def __init__(
        self, limit_s: float, beat: Callable[[], None], stuck: Callable[[str], None]
    ) -> None:
        self._limit_s = limit_s
        self._beat = beat
        self._stuck = stuck
        self._watching = False
        self._ended = threading.Event()
        self._turned = self._advanced = self._took = False
        self._frames_out = False
        self._engine_s = self._feeder_s = 0.0

    def start(self) -> None:
        """Beat from now on, on a thread of its own."""
        threading.Thread(target=self._work, name="tspcli-pulse", daemon=True).start()

    def close(self) -> None:
        """Beat no more."""
        self._ended.set()

    def watch(self, watching: bool) -> None:
        """Say whether the engine is at work."""
        self._engine_s = self._feeder_s = 0.0
        self._watching = watching

    def turned(self) -> None:
        """The engine's thread looked for work."""
        self._turned = True

    def advanced(self) -> None:
        """The engine's thread has finished a batch."""
        self._advanced = True

    def watched(self, source: EventSource) -> EventSource:
        """The source, with an eye on the thread that takes from it."""
        return _Watched(source, self)

    def gave(self) -> None:
        """The feeder has taken something."""
        self._took = self._frames_out = True

    def came_back(self) -> None:
        """The feeder is done with what it took."""
        self._frames_out = False

    def step(self) -> None:
        """Do what is done once a beat."""
        turned, advanced, took = self._turned, self._advanced, self._took
        self._turned = self._advanced = self._took = False
        self._beat()
        if not self._watching:
            return
        self._engine_s = 0.0 if turned or advanced else self._engine_s + BEAT_S
        # It waits while the engine is at work, so a batch counts for it too.
        waits = advanced or took or not self._frames_out
        self._feeder_s = 0.0 if waits else self._feeder_s + BEAT_S
        if max(self._engine_s, self._feeder_s) >= self._limit_s:
            self._watching = False
            self._stuck(f"no batch was finished within {self._limit_s:g} s")

    def _work(self) -> None:
        while not self._ended.wait(BEAT_S):
            self.step()


class _Watched:
    """A source whose taker is watched."""

    def __init__(self, source: EventSource, pulse: Pulse) -> None:
        self._source = source
        self._pulse = pulse
        self.wake = source.wake
        self.drain = source.drain
        self.close = source.close

    def live(self) -> Iterator[Event | Idle | Woken]:
        """What becomes of the videos."""
        for event in self._source.live():
            self._pulse.gave()
            yield event
            self._pulse.came_back()
        self._pulse.came_back()
