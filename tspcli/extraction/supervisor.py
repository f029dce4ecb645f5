"""Hands out a run's videos to workers, replaces workers that are lost, and sums their figures.

Workers commit parts to the folder beside the store, which all of them see; this process hands out
videos, the longest first, and assembles. Whatever is lost, a worker, a node or this process, costs
at most what was under way there: a lost worker is started again in its place, its videos are done
by whichever worker has room, and a run that is started again finds the parts. How workers are
reached is the transport's business (:mod:`tspcli.extraction.transports`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tspcli.core.files import absolute
from tspcli.core.progress import Reporter
from tspcli.core.stop import GentleStop
from tspcli.core.text import counted
from tspcli.core.version import __version__
from tspcli.encoders import Encoder
from tspcli.errors import TspError, UsageError, VideoError
from tspcli.extraction.extract_config import EncoderInfo, ExtractConfig
from tspcli.extraction.run_report import ExtractReport, RunFigures, VideoResult
from tspcli.extraction.task import (
    MAX_VIDEO_LOSSES,
    Begin,
    Close,
    Drain,
    Encode,
    Place,
    RunLog,
    Runner,
    Task,
    Update,
    VideoQueue,
    require_alike,
    take_part,
)
from tspcli.extraction.transports import (
    ChildTransport,
    InProcessRunner,
    Transport,
    Worker,
    device_names,
)
from tspcli.store.parts import PartsFolder
from tspcli.video import VideoFile

LOOK_EVERY_S = 0.25
"""How long to wait for updates before the reporter is asked whether the run is to stop."""
RESTART_EVERY_S = 2.0
"""How often to look for places without a worker."""
SILENT_S = 120.0
"""How long a worker that has loaded its encoder may say nothing before it counts as hung."""
MAX_PLACE_LOSSES = 3
"""So many workers lost in a row, without a video ended in between, and a place is given up."""
_QUEUED_VIDEOS = 2
"""Videos that wait at a worker, so that no decode process waits for this one."""
_WAIT_FOR_PLACES_S = 60.0
_STOP_S = 5.0
"""How long workers may take to commit what they have when the run ends."""
_REMIND_EVERY_S = 20.0


def choose_runner(config: ExtractConfig, encoder: Encoder | None = None) -> Runner:
    """The runner that the user's choices call for.

    Args:
        config: The user's choices.
        encoder: An encoder that is loaded already.

    Raises:
        UsageError: If the choices contradict each other or the machine.
    """
    devices = [] if config.engine == "ray" else device_names(config)
    if encoder is not None and len(devices) != 1:
        raise UsageError(
            "An encoder that is loaded already cannot compute in several processes.",
            remedy="Name its weights in the settings instead.",
        )
    if config.profile is not None and len(devices) != 1:
        raise UsageError(
            "--profile traces one process, and this run encodes in several.",
            remedy="Run on one device.",
            option="--profile",
        )
    if config.engine == "ray":
        from tspcli.extraction.ray_transport import RayTransport

        return Supervisor(RayTransport(config))
    if len(devices) > 1:
        return Supervisor(ChildTransport(config, devices))
    return InProcessRunner(replace(config, device=devices[0]), encoder)


@dataclass(eq=False)
class _Member:
    """A worker as its supervisor sees it."""

    worker: Worker
    ready: bool = False
    """Whether its encoder is loaded."""
    begun: bool = False
    """Whether it has begun the run."""
    ended: bool = False
    videos: dict[str, VideoFile] = field(default_factory=dict)
    """Its videos under way, by key."""
    figures: RunFigures = field(default_factory=RunFigures)
    ended_s: float = 0.0
    """Seconds of the videos that it has done."""
    silent_s: float = 0.0

    @property
    def place(self) -> Place:
        return self.worker.place

    @property
    def room(self) -> int:
        """How many more videos it may have."""
        return self.place.n_decoders + _QUEUED_VIDEOS - len(self.videos)


class Supervisor:
    """Runs workers over a transport.

    Args:
        transport: Where workers run.
    """

    is_parallel = True

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._members: list[_Member] = []
        self._losses: Counter[Place] = Counter()
        self._gone: list[RunFigures] = []
        self._encoders: dict[str, EncoderInfo] = {}
        self._task: Task | None = None
        self._queue = VideoQueue([])
        self._parts: PartsFolder | None = None
        self._log = RunLog(ExtractReport("", {}), Reporter())
        self._stop = GentleStop(Reporter())
        self._looked = self._staffed = 0.0
        self._last_words = ""

    def start(self, log: RunLog) -> EncoderInfo:
        """Start the workers, and wait for the first or for all, as the transport needs it.

        Raises:
            TspError: If no worker can be started, or one of the first cannot load its encoder.
            UsageError: If their encoders differ.
        """
        self._log = log
        self._transport.connect()
        self._looked = time.monotonic()
        remind = self._looked + _REMIND_EVERY_S
        self._start_workers()
        while not self._is_staffed():
            self._require_workers()
            self._listen()
            self._start_workers()
            if time.monotonic() > remind:
                remind = time.monotonic() + _REMIND_EVERY_S
                n_ready = sum(member.ready for member in self._members)
                log.reporter.message(
                    f"Waiting for encoders: {n_ready} of {len(self._members)} loaded."
                )
        return next(iter(self._encoders.values()))

    def run(self, task: Task, videos: Sequence[VideoFile], parts: PartsFolder, log: RunLog) -> None:
        """Do the videos.

        Raises:
            TspError: If no worker is left, or one meets an error of the run.
        """
        self._task = replace(task, out=Path(absolute(task.out)))
        self._queue, self._parts, self._log = VideoQueue(videos), parts, log
        self._stop = GentleStop(log.reporter)
        started = self._looked = time.monotonic()
        try:
            for member in self._members:
                if member.ready:
                    member.worker.send(Begin(self._task))
            while self._queue.left:
                if self._stop.begins():
                    self._drain()
                if not self._stop.wanted:
                    self._start_workers()
                    self._require_workers()
                    self._hand_out()
                elif not any(member.videos for member in self._members):
                    break
                self._listen()
                log.figures.elapsed_s = time.monotonic() - started
            self._finish()
            self._stop.conclude()
        finally:
            self._close_workers(self._stop.patience_s(_STOP_S))
            log.figures.elapsed_s = time.monotonic() - started
            log.figures.copy_to(log.report)

    def close(self) -> None:
        """End the workers and the transport."""
        self._close_workers(0.0)
        self._transport.close()

    def _is_staffed(self) -> bool:
        """Whether enough workers are ready for the run to begin."""
        ready = [member.ready for member in self._members]
        if not self._transport.needs_all:
            return any(ready)
        open_places = [p for p in self._transport.places() if not self._is_given_up(p)]
        return any(ready) and len(ready) == len(open_places) and all(ready)

    def _is_given_up(self, place: Place) -> bool:
        return self._losses[place] >= MAX_PLACE_LOSSES

    def _start_workers(self) -> None:
        """Now and then start a worker at every place that has none and is not given up."""
        now = time.monotonic()
        if self._members and now - self._staffed < RESTART_EVERY_S:
            return
        self._staffed = now
        taken = {member.place for member in self._members}
        for place in self._transport.places():
            if place not in taken and not self._is_given_up(place):
                self._members.append(_Member(self._transport.start(place)))

    def _require_workers(self) -> None:
        """Wait for places while there is no worker.

        Raises:
            TspError: If none comes, or all places are given up.
        """
        deadline = time.monotonic() + _WAIT_FOR_PLACES_S
        while not self._members:
            self._start_workers()
            if self._members:
                return
            places = self._transport.places()
            given_up = places and all(map(self._is_given_up, places))
            if given_up or time.monotonic() > deadline:
                raise TspError(
                    "No worker is left"
                    + (f": each of {len(places)} places lost {MAX_PLACE_LOSSES}" if places else "")
                    + (f"; the last one {self._last_words}." if self._last_words else "."),
                    remedy="Finished videos are kept; the same command resumes from there.",
                    places=len(places),
                )
            if self._stop.begins():
                self._stop.conclude()
            time.sleep(LOOK_EVERY_S)

    def _hand_out(self) -> None:
        """Give the longest videos to the workers that have the most room."""
        able = [member for member in self._members if member.begun and not member.ended]
        while able:
            member = max(able, key=lambda member: member.room)
            alone = any(map(self._queue.is_suspect, member.videos))
            file = None
            if member.room > 0 and not alone:
                file = self._queue.take(alone=not member.videos)
            if file is None:
                able.remove(member)
                continue
            member.videos[file.key] = file
            sent = VideoFile(Path(absolute(file.path)), file.key)
            member.worker.send(Encode(sent, self._queue.sizes[file.key]))

    def _listen(self) -> None:
        """Take the updates that there are, and look for workers that hang."""
        members = {member.worker: member for member in self._members}
        heard = set()
        for worker, update in self._transport.receive(list(members), LOOK_EVERY_S):
            if members[worker] in self._members:
                heard.add(worker)
                self._handle_message(members[worker], update)
        now = time.monotonic()
        # This process may have been stopped itself, together with the workers.
        passed_s = min(now - self._looked, 4 * LOOK_EVERY_S)
        self._looked = now
        for member in list(self._members):
            member.silent_s = 0.0 if member.worker in heard else member.silent_s + passed_s
            limit_s = SILENT_S if member.ready else self._transport.starting_s
            if limit_s is not None and member.silent_s > limit_s and not member.ended:
                self._lose(member, f"gave no sign of life for {limit_s:g} s")

    def _handle_message(self, member: _Member, update: Update) -> None:
        for text in update.messages:
            self._log.reporter.message(text)
        self._log.report.notes += update.notes
        for result in update.results:
            self._end_video(member, result)
        if update.figures is not None:
            member.figures = update.figures
            self._sum_up()
            self._log.show()
        if update.error is not None:
            if member.ready or not self._losses[member.place]:
                raise update.error
            # It could be loaded there before.
            self._lose(member, f"failed: {update.error}")
        elif update.fault is not None:
            self._lose(member, update.fault)
        elif update.encoder is not None:
            self._take_in(member, update.version, update.encoder)
        member.begun |= update.begun
        if update.ended:
            member.ended = True
            member.videos.clear()

    def _take_in(self, member: _Member, version: str | None, encoder: EncoderInfo) -> None:
        """A worker has loaded its encoder."""
        if version != __version__:
            raise UsageError(
                f"The worker on {member.place.name} has tspcli {version}, this machine "
                f"{__version__}.",
                remedy="Install the same version on all nodes.",
                value=version,
            )
        member.ready = True
        self._encoders[member.place.name] = encoder
        require_alike(self._encoders)
        if self._task is not None:
            member.worker.send(Begin(self._task))

    def _end_video(self, member: _Member, result: VideoResult) -> None:
        self._losses[member.place] = 0
        member.videos.pop(result.key, None)
        ended = self._queue.end(result.key)
        if ended is None:
            return
        file, source_bytes = ended
        if result.status == "done":
            assert self._parts is not None
            take_part(self._parts, file.key)
            member.ended_s += result.duration_s or 0.0
        self._log.end_video(replace(result, path=str(file.path)), source_bytes)

    def _lose(self, member: _Member, words: str) -> None:
        """A worker is gone or of no more use: what was under way there waits again."""
        self._members.remove(member)
        member.worker.kill()
        self._last_words = words
        self._gone.append(member.figures.of_the_lost(member.ended_s))
        lost = list(member.videos.values())
        under_way = f"{counted(len(lost), 'video')} under way there"
        outcome = "left for the next run" if self._stop.wanted else "to be done again"
        self._log.note(
            f"The worker on {member.place.name} {words}"
            + (f"; {under_way}, {outcome}." if lost else ".")
        )
        given_up = [] if self._stop.wanted else self._queue.give_back(lost)
        # What a video has done is no fault of the place.
        self._losses[member.place] += not given_up
        for file in given_up:
            detail = (
                f"{MAX_VIDEO_LOSSES} workers were lost while it was under way; the last {words}"
            )
            result = VideoResult.without_features(file, VideoError("crashed", detail))
            if (ended := self._queue.end(file.key)) is not None:
                self._log.end_video(result, ended[1])

    def _sum_up(self) -> None:
        """The workers' figures together; waiting and encoding as the mean over those that live."""
        figures, living = self._log.figures, [member.figures for member in self._members]
        everyone = living + self._gone
        figures.n_clips = sum(each.n_clips for each in everyone)
        figures.video_s = sum(each.video_s for each in everyone)
        figures.begun_bytes = sum(each.begun_bytes for each in living)
        if living:
            figures.encode_s = sum(each.encode_s for each in living) / len(living)
            figures.decode_wait_s = sum(each.decode_wait_s for each in living) / len(living)

    def _drain(self) -> None:
        """Let the workers begin no further video, and end."""
        for member in self._members:
            if member.begun and not member.ended:
                member.worker.send(Drain())

    def _finish(self) -> None:
        """Let the workers end, and take their last figures and notes."""
        if not self._stop.wanted:
            self._drain()
        deadline = time.monotonic() + _STOP_S
        while any(m.begun and not m.ended for m in self._members) and time.monotonic() < deadline:
            self._stop.begins()
            self._listen()
        self._sum_up()

    def _close_workers(self, patience_s: float) -> None:
        """End the workers; no one writes any more when this returns.

        Args:
            patience_s: How long they may take for what they are writing.
        """
        members, self._members = self._members, []
        try:
            waiting = {m.worker for m in members if m.begun and not m.ended} if patience_s else ()
            waiting = set(waiting)
            for worker in waiting:
                worker.send(Close())
            deadline = time.monotonic() + patience_s
            while waiting and time.monotonic() < deadline:
                for worker, update in self._transport.receive(list(waiting), LOOK_EVERY_S):
                    if update.ended or update.fault is not None:
                        waiting.discard(worker)
        finally:
            for member in members:
                member.worker.kill()
