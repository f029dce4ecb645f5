"""The feeder: out of the decode workers' shared memory, to the encoder's device, normalised."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass

import torch

from tspcli.encoders import Encoder
from tspcli.extraction.decoding import EventSource
from tspcli.extraction.preparing import FramePreparer, PreparedFrames
from tspcli.extraction.trace import Trace
from tspcli.video import Failed, Finished, Frames, Idle, Opened, Restarted, Woken

_LOOK_UP_S = 0.25
_QUEUED_CHUNKS = 2


@dataclass
class Prepared:
    """A chunk of frames that is on its way to the encoder's device."""

    event: Frames
    frames: PreparedFrames


Word = Prepared | Opened | Finished | Failed | Restarted | Idle | Woken
_Item = Word | BaseException | None


def feed(
    source: EventSource, encoder: Encoder, note_wait: Callable[[float], None], trace: Trace
) -> Generator[Word | None, None, None]:
    """The source's events, frames prepared on a thread of their own, a bounded number ahead.

    Args:
        source: Is closed in the end.
        encoder: Whose frames they are.
        note_wait: Told of seconds in which nothing came.
        trace: What each side did when.

    Yields:
        None now and then while there is no event.
    """
    items: queue.Queue[_Item] = queue.Queue(_QUEUED_CHUNKS)
    stop = threading.Event()

    def put(item: _Item) -> None:
        while not stop.is_set():
            with suppress(queue.Full):
                items.put(item, timeout=0.1)
                return

    def work() -> None:
        try:
            preparer = FramePreparer(encoder)
            with torch.inference_mode():
                for event in source.live():
                    if stop.is_set():
                        return
                    if isinstance(event, Frames):
                        trace.decoded(event)
                        with trace.span("prepare", frames=len(event.ticks)):
                            frames = preparer.prepare(torch.from_numpy(event.pixels))
                        event.release()
                        put(Prepared(event, frames))
                    else:
                        put(event)
            put(None)
        except BaseException as error:  # raised again where the items are taken
            put(error)

    feeder = threading.Thread(target=work, name="tspcli-feeder", daemon=True)
    feeder.start()
    try:
        while True:
            waiting = time.monotonic()
            with trace.span("wait for frames"):
                try:
                    item = items.get(timeout=_LOOK_UP_S)
                except queue.Empty:
                    note_wait(time.monotonic() - waiting)
                    yield None
                    continue
            note_wait(time.monotonic() - waiting)
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        source.close()
        feeder.join(timeout=5)
