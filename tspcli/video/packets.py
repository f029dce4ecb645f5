"""Packets and their times: looking ahead, and guessing what a careless muxer left out."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterator
from typing import Any

_MAX_AHEAD = 64


class TimestampGuess:
    """Chooses between a frame's presentation time and its packet's decoding time.

    AVI and some other files hold decoding times alone, out of which FFmpeg makes presentation
    times that jump back and forth. FFmpeg counts which of the two series misbehaves more often and
    believes the other; its tools, and so the official features, go by that choice.
    """

    def __init__(self) -> None:
        self.n_faulty_pts = 0
        self._n_faulty_dts = 0
        self._last_pts: int | None = None
        self._last_dts: int | None = None

    def push(self, pts: int | None, dts: int | None) -> int | None:
        """Take a decoded frame's two times; return the one to believe, None if it has neither."""
        if dts is not None:
            self._n_faulty_dts += self._last_dts is not None and dts <= self._last_dts
            self._last_dts = dts
        elif pts is not None:
            self._last_dts = pts
        if pts is not None:
            self.n_faulty_pts += self._last_pts is not None and pts <= self._last_pts
            self._last_pts = pts
        elif dts is not None:
            self._last_pts = dts
        if pts is not None and (dts is None or self.n_faulty_pts <= self._n_faulty_dts):
            return pts
        return dts


class Lookahead:
    """Packets in decoding order that also know which picture is shown after theirs.

    Args:
        packets: The packets of one stream; the last may be None, which flushes the decoder.
    """

    def __init__(self, packets: Iterator[Any]) -> None:
        self._packets = packets
        self._waiting: deque[Any] = deque()
        self._known: list[int] = []
        self._newest_dts: int | None = None
        self._ended = False

    def __iter__(self) -> Iterator[Any]:
        while self._waiting or self._read():
            yield self._waiting.popleft()

    def next_pts(self, packet: Any) -> int | None:
        """The presentation time of the frame shown after this packet's, None if unsure.

        Sure it is as soon as a packet was read whose decoding time is not before it: pictures are
        never shown before they are decoded, so none that comes later can lie between.
        """
        while True:
            position = bisect_right(self._known, packet.pts)
            following = self._known[position] if position < len(self._known) else None
            settled = following is not None and (
                self._ended or (self._newest_dts is not None and self._newest_dts >= following)
            )
            if settled:
                # Times before this packet's own are asked for no more, save by packets that were
                # moved behind it in decoding order: some are kept.
                if position > 2 * _MAX_AHEAD:
                    del self._known[: position - _MAX_AHEAD]
                return following
            if len(self._waiting) >= _MAX_AHEAD or not self._read():
                return None

    def _read(self) -> bool:
        packet: Any = next(self._packets, _END)
        if packet is _END:
            self._ended = True
            return False
        self._waiting.append(packet)
        if packet is not None and packet.pts is not None and not packet.is_discard:
            insort(self._known, packet.pts)
        if packet is not None and packet.dts is not None:
            self._newest_dts = packet.dts
        return True


_END = object()
