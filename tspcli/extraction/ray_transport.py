"""A run on a Ray cluster: videos as calls to encoders, one encoder a GPU.

Encoders commit parts to the folder beside the store, which all nodes have to see; this process,
the driver, hands out videos, the longest first, and assembles. Whatever is lost, a node, an
encoder or the driver itself, is at most what was under way there: an encoder that is gone is
started again where its node lives, its videos are done by whichever has room, and a driver that
is started again finds the parts. A driver that is told to stop drains the encoders first.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tspcli.core.files import absolute
from tspcli.core.progress import Reporter
from tspcli.core.stop import GentleStop
from tspcli.core.text import counted, first_line
from tspcli.core.version import __version__
from tspcli.errors import TspError, UsageError, VideoError
from tspcli.extraction.extract_config import EncoderFacts, ExtractConfig
from tspcli.extraction.ray_places import Place, connect, find_places
from tspcli.extraction.run_report import ExtractReport, VideoResult
from tspcli.extraction.service import EngineClosedError, Words
from tspcli.extraction.task import Board, Task, VideoQueue, require_alike, take_part
from tspcli.store.parts import PartsFolder
from tspcli.video import VideoFile

_LOOK_EVERY_S = 2.0
"""How often nodes are counted and encoders asked how far they are."""
_QUEUED_VIDEOS = 2
"""Videos that wait at an encoder, so that no decode process waits for the driver."""
_MAX_LOSSES = 3
"""Encoders lost in a row at one place, or over one video, after which it is given up."""
_WAIT_FOR_NODES_S = 60.0
_SILENT_S = 120.0
"""How long an encoder may leave a question for its progress unanswered before it counts as hung."""
_HEAR_S = 0.25
"""How long to wait for answers before the reporter is asked whether the run is to stop."""
_STOP_S = 5.0
_PATIENCE_S = 20.0


@dataclass(eq=False)
class _Encoder:
    """An encoder as the driver sees it."""

    place: Place
    actor: Any
    videos: dict[Any, VideoFile] = field(default_factory=dict)
    """Its videos under way, by the call's reference."""
    loaded: bool = False
    ready: bool = False
    """Whether it has taken the run."""
    words: Words = field(default_factory=Words)
    silent_s: float = 0.0
    """How long it has owed an answer to that."""
    ended_s: float = 0.0


class RayRunner:
    """Runs encoders on a Ray cluster.

    Args:
        config: The user's choices; ``ray_address`` names the cluster. Without one it is the
            cluster that ``RAY_ADDRESS`` names or this machine belongs to, else one of this machine
            alone, started for the run.
    """

    shares_out = True

    def __init__(self, config: ExtractConfig) -> None:
        self._config = config
        self._encoders: list[_Encoder] = []
        self._calls: dict[Any, tuple[_Encoder, str]] = {}
        """Every call that was not answered: whose it is and which."""
        self._losses: Counter[Place] = Counter()
        self._video_losses: Counter[str] = Counter()
        self._gone: list[Words] = []
        self._first: EncoderFacts | None = None
        self._connected = False
        self._early_notes: list[str] = []
        self._task: Task | None = None
        self._stop = GentleStop(Reporter())

    def start(self, reporter: Reporter) -> EncoderFacts:
        """Connect and wait for the first encoder; the others join when they are ready.

        Raises:
            DependencyError: If Ray is not installed.
            TspError: If the cluster cannot be reached, or no encoder can be started there.
        """
        self._connected = connect(self._config.ray_address)
        if not find_places(self._nodes(), self._config):
            raise UsageError(
                "The Ray cluster has no node for an encoder: "
                f"{counted(len(self._nodes()), 'node')}, device {self._config.device}, "
                f"GPUs {self._config.gpus or 'as many as there are'}.",
                remedy="See `ray status`; --device cpu computes without GPUs.",
            )
        self._start_encoders()
        board = Board(ExtractReport("", {}), reporter)
        told = time.monotonic() + _PATIENCE_S
        while self._first is None:
            self._hear(None, None, board)
            self._require_encoders()
            self._start_encoders()
            if time.monotonic() > told:
                told = time.monotonic() + _PATIENCE_S
                reporter.message(
                    "Waiting for room on the Ray cluster: "
                    f"none of {len(self._encoders)} encoders has started."
                )
        self._early_notes = board.report.notes
        return self._first

    def run(
        self, task: Task, videos: Sequence[VideoFile], parts: PartsFolder, board: Board
    ) -> None:
        """Do the videos.

        Raises:
            TspError: If no encoder is left, or one cannot write.
        """
        self._task = replace(task, out=Path(absolute(task.out)))
        self._stop = GentleStop(board.reporter)
        queue = VideoQueue(videos)
        started = looked = time.monotonic()
        try:
            board.report.notes += self._early_notes
            for encoder in self._encoders:
                if encoder.loaded:
                    self._call(encoder, "take", self._task)
            while queue.left:
                if self._stop.begins():
                    self._drain()
                if self._stop.wanted and not any(encoder.videos for encoder in self._encoders):
                    break
                if not self._stop.wanted:
                    self._hand_out(queue)
                self._hear(queue, parts, board)
                board.progress.elapsed_s = time.monotonic() - started
                passed_s = time.monotonic() - looked
                if passed_s > _LOOK_EVERY_S and not self._stop.wanted:
                    looked = time.monotonic()
                    # This process may have been stopped itself, together with the encoders.
                    self._look(queue, board, min(passed_s, 2 * _LOOK_EVERY_S))
            self._look(queue, board, last=True)
            self._stop.conclude()
        finally:
            self._end_encoders()
            board.progress.elapsed_s = time.monotonic() - started
            board.progress.copy_to(board.report)

    def close(self) -> None:
        """End the encoders, and the connection if it was made here."""
        self._end_encoders()
        if self._connected:
            import ray

            ray.shutdown()
            self._connected = False

    def _nodes(self) -> list[dict[str, Any]]:
        import ray

        nodes: list[dict[str, Any]] = ray.nodes()
        return nodes

    def _start_encoders(self) -> None:
        """Start an encoder at every place that has none and has not been given up."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from tspcli.extraction.ray_actor import EncoderActor

        taken = {encoder.place for encoder in self._encoders}
        for place in find_places(self._nodes(), self._config):
            if place in taken or self._losses[place] >= _MAX_LOSSES:
                continue
            actor = (
                ray.remote(EncoderActor)
                .options(
                    num_cpus=place.n_cpus,
                    num_gpus=int(place.device == "cuda"),
                    max_concurrency=self._depth(place) + 3,
                    scheduling_strategy=NodeAffinitySchedulingStrategy(place.node, soft=False),
                )
                .remote(self._config, place.device, place.n_cpus)
            )
            encoder = _Encoder(place, actor)
            self._encoders.append(encoder)
            self._call(encoder, "load")

    def _depth(self, place: Place) -> int:
        return (self._config.workers or place.n_cpus) + _QUEUED_VIDEOS

    def _call(self, encoder: _Encoder, method: str, *arguments: Any) -> Any:
        reference = getattr(encoder.actor, method).remote(*arguments)
        self._calls[reference] = encoder, method
        return reference

    def _hand_out(self, queue: VideoQueue) -> None:
        """Give the longest videos to the encoders that have the most room."""
        ready = [encoder for encoder in self._encoders if encoder.ready]
        while queue.waiting and ready:
            encoder = max(ready, key=lambda e: self._depth(e.place) - len(e.videos))
            if len(encoder.videos) >= self._depth(encoder.place):
                return
            file = queue.waiting.popleft()
            sent = VideoFile(Path(absolute(file.path)), file.key)
            reference = self._call(encoder, "encode", sent, queue.sizes[file.key])
            encoder.videos[reference] = file

    def _hear(self, queue: VideoQueue | None, parts: PartsFolder | None, board: Board) -> None:
        """Wait a while for answers, and take all that there are."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        if not self._calls:
            time.sleep(0.2)
            return
        answered, rest = ray.wait(list(self._calls), num_returns=1, timeout=_HEAR_S)
        if rest and answered:
            answered += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        for reference in answered:
            encoder, method = self._calls.pop(reference, (None, ""))
            if encoder is None:
                continue
            try:
                answer = ray.get(reference)
            except RayTaskError as error:
                cause = error.cause
                if isinstance(cause, EngineClosedError) and self._stop.wanted:
                    encoder.videos.pop(reference, None)
                elif isinstance(cause, TspError):
                    raise cause from None
                else:
                    self._lose(encoder, f"failed: {cause!r}", queue, board)
            except RayError as error:
                self._lose(encoder, f"is gone ({first_line(error)})", queue, board)
            else:
                self._take_answer(encoder, method, reference, answer, queue, parts, board)

    def _take_answer(
        self,
        encoder: _Encoder,
        method: str,
        reference: Any,
        answer: Any,
        queue: VideoQueue | None,
        parts: PartsFolder | None,
        board: Board,
    ) -> None:
        if method == "load":
            version, facts = answer
            encoder.loaded = True
            if version != __version__:
                raise UsageError(
                    f"{encoder.place.name} has tspcli {version}, this machine {__version__}.",
                    remedy="Install the same version on all nodes.",
                )
            self._first = self._first or facts
            require_alike({"the first node": self._first, encoder.place.name: facts})
            if self._task is not None:
                self._call(encoder, "take", self._task)
        elif method == "take":
            encoder.ready = True
        elif method == "words":
            encoder.words = answer
            encoder.silent_s = 0.0
            for text in answer.messages:
                board.reporter.message(text)
            board.report.notes += answer.notes
        elif method == "encode" and queue is not None and parts is not None:
            file = encoder.videos.pop(reference)
            self._losses[encoder.place] = 0
            if answer.status == "done":
                take_part(parts, file.key)
                encoder.ended_s += answer.duration_s or 0.0
            queue.left.discard(file.key)
            board.end(replace(answer, path=str(file.path)), queue.sizes[file.key])

    def _lose(self, encoder: _Encoder, words: str, queue: VideoQueue | None, board: Board) -> None:
        """An encoder is gone: its videos wait again."""
        import ray

        if encoder not in self._encoders:
            return
        self._encoders.remove(encoder)
        left = encoder.words.progress.of_the_lost(encoder.ended_s)
        self._gone.append(replace(encoder.words, progress=left))
        self._calls = {r: call for r, call in self._calls.items() if call[0] is not encoder}
        with suppress(Exception):
            ray.kill(encoder.actor)
        self._losses[encoder.place] += 1
        lost = list(encoder.videos.values())
        board.note(
            f"The {encoder.place.name} {words}. Under way there: "
            f"{counted(len(lost), 'video')}, "
            + ("left." if self._stop.wanted else "done again elsewhere.")
        )
        for file in reversed(lost):
            self._video_losses[file.key] += 1
            assert queue is not None
            if self._video_losses[file.key] >= _MAX_LOSSES:
                queue.left.discard(file.key)
                detail = f"{_MAX_LOSSES} encoders were lost while it was under way"
                error = VideoError("crashed", detail)
                board.end(VideoResult.without_features(file, error), queue.sizes[file.key])
            else:
                queue.waiting.appendleft(file)

    def _look(
        self, queue: VideoQueue, board: Board, passed_s: float = 0.0, last: bool = False
    ) -> None:
        """Ask the encoders how far they are; start encoders where there is room for them now."""
        if last:
            self._calls = {r: call for r, call in self._calls.items() if call[1] == "words"}
            for encoder in self._encoders:
                if encoder.ready:
                    self._call(encoder, "words")
            deadline = time.monotonic() + _STOP_S
            while self._calls and time.monotonic() < deadline:
                self._stop.begins()
                self._hear(None, None, board)
        else:
            asked = {encoder for encoder, method in self._calls.values() if method == "words"}
            for encoder in list(self._encoders):
                if encoder.loaded and encoder not in asked:
                    self._call(encoder, "words")
                elif encoder.loaded:
                    encoder.silent_s += passed_s
                    if encoder.silent_s > _SILENT_S:
                        self._lose(encoder, "does not answer", queue, board)
            self._start_encoders()
            self._require_encoders()
        each = [encoder.words.progress for encoder in self._encoders]
        figures = each + [words.progress for words in self._gone]
        board.progress.n_clips = sum(progress.n_clips for progress in figures)
        board.progress.video_s = sum(progress.video_s for progress in figures)
        board.progress.begun_bytes = sum(progress.begun_bytes for progress in each)
        if each:
            board.progress.encode_s = sum(p.encode_s for p in each) / len(each)
            board.progress.decode_wait_s = sum(p.decode_wait_s for p in each) / len(each)
        board.show()

    def _require_encoders(self) -> None:
        """Wait for nodes while there is none.

        Raises:
            TspError: If none comes, or all places were given up.
        """
        deadline = time.monotonic() + _WAIT_FOR_NODES_S
        while not self._encoders:
            places = find_places(self._nodes(), self._config)
            given_up = places and all(self._losses[place] >= _MAX_LOSSES for place in places)
            if given_up or time.monotonic() > deadline:
                raise TspError(
                    "No encoder is left on the Ray cluster"
                    + (f": each of {len(places)} was lost {_MAX_LOSSES} times." if places else "."),
                    remedy="Finished videos are kept; the same command goes on from there.",
                )
            if self._stop.begins():
                self._stop.conclude()
            time.sleep(_HEAR_S)
            self._start_encoders()

    def _drain(self) -> None:
        """Let the encoders begin no further video."""
        for encoder in self._encoders:
            if encoder.ready:
                self._call(encoder, "drain")

    def _end_encoders(self) -> None:
        """Let the encoders commit what is whole, then end them."""
        if not self._encoders:
            return
        import ray

        with suppress(Exception):
            closing = [encoder.actor.close.remote() for encoder in self._encoders]
            ray.wait(closing, num_returns=len(closing), timeout=self._stop.patience_s(_STOP_S))
        for encoder in self._encoders:
            with suppress(Exception):
                ray.kill(encoder.actor)
        self._encoders.clear()
        self._calls.clear()
