"""Stages of an experiment: run what is not done yet, several at a time, and resume after a kill.

A stage has a folder of its own. ``stage.json`` there holds the digest of everything that its result
depends on: its commands, the results of the stages before it, and the files that it is given. A
stage whose digest is unchanged is not run again; one that was started with the same digest resumes
(its commands do so by themselves); anything else begins with an empty folder.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tspcli import __version__
from tspcli.core.files import file_sha256, replacing
from tspcli.core.progress import Reporter
from tspcli.core.text import clock, counted
from tspcli.errors import TspError

STAGE_FILE = "stage.json"
LOG_FILE = "log.txt"
STDOUT_FILE = "stdout.txt"
_SOME_FAILED = 3
"""Exit code of commands that finished, but could not decode some videos."""

Command = tuple[str, ...]
Tell = Callable[[str], None]


class ReproductionError(TspError):
    """An experiment that cannot start or resume."""


@dataclass(frozen=True)
class Stage:
    """One step of an experiment.

    Attributes:
        name: Also its folder below the experiment's.
        commands: Arguments of ``tsp``, one command after the other; those that begin with ``-m``
            name another module to run.
        call: What to do after the commands, given the stage's folder and a way to report progress.
        after: Names of the stages whose results it reads.
        outputs: Files and folders below its own folder on which later stages depend.
        files: Files from outside; their names and sizes count.
        settings: Whatever else ``call`` depends on, as plain values.
        cost: About how long it takes beside other stages.
        about: What it does, in a few words.
    """

    name: str
    commands: tuple[Command, ...] = ()
    call: Callable[[Path, Tell], None] | None = None
    after: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    cost: float = 1.0
    about: str = ""


@dataclass
class StageRecord:
    """What ``stage.json`` holds.

    Attributes:
        digest: Of everything that the result depends on.
        done: Whether the result is complete.
        seconds: Wall time, the last sitting alone if there were several.
        sittings: How often it was started.
        outputs: sha256 by path below the stage's folder.
        notes: What was out of the ordinary.
        commands: As run, for the record.
    """

    digest: str
    done: bool = False
    seconds: float = 0.0
    sittings: int = 1
    outputs: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> StageRecord | None:
        """The record of a stage's folder; None if there is none that can be read."""
        try:
            return cls(**json.loads((folder / STAGE_FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, folder: Path) -> None:
        """Write the record, whole or not at all."""
        with replacing(folder / STAGE_FILE) as aside:
            aside.write_text(json.dumps(vars(self), indent=1), encoding="utf-8")


STAGES = "all stages"
"""The task of a run; each stage under way is a further task, named like the stage."""


@dataclass(frozen=True)
class StageResult:
    """The end of a stage.

    Attributes:
        stage: Which one.
        seconds: How long it took; 0 if it was complete before.
        n_done, n_stages: How many stages are complete, and how many there are.
        left_s: About how long the rest will take, if that is known.
    """

    stage: Stage
    seconds: float
    n_done: int
    n_stages: int
    left_s: float | None

    def line(self) -> str:
        """The end of a stage that was run, in one line."""
        if not self.seconds:
            return ""
        took = f"{self.stage.name}: {self.stage.about}, {clock(self.seconds)}"
        return f"[{self.n_done}/{self.n_stages}] {took}{self.left and f', {self.left}'}"

    @property
    def left(self) -> str:
        """How long the rest will take, in words."""
        return "" if self.left_s is None else f"about {clock(self.left_s)} left"


Execute = Callable[[Command, Path, Path, Tell], int]
"""Runs one command: its arguments, the file for stdout, the file for stderr; the exit code."""


class StageRunner:
    """Runs stages in the order that their dependencies allow.

    Args:
        root: The experiment's folder.
        stages: All of them; those that a stage reads stand before it.
        jobs: How many run at a time.
        reporter: Receives the progress, from several threads: :data:`STAGES`, a task per stage, and
            a :class:`StageResult` for each.
        execute: Runs a command.
        stop: Ends the commands that run, after Ctrl-C.
    """

    def __init__(
        self,
        root: Path,
        stages: Sequence[Stage],
        execute: Execute,
        *,
        stop: Callable[[], None] = lambda: None,
        jobs: int = 1,
        reporter: Reporter | None = None,
    ) -> None:
        self.root = root
        self.stages = list(stages)
        self.jobs = jobs
        self.reporter = reporter or Reporter()
        self.execute, self.stop = execute, stop
        self.records: dict[str, StageRecord] = {}
        self._began = time.monotonic()
        self._cost_run = 0.0
        self._ran: set[str] = set()

    def run(self) -> dict[str, StageRecord]:
        """Run what is not complete.

        Returns:
            The records of all stages by name.

        Raises:
            ReproductionError: If a stage fails; the others that run are waited for.
        """
        known = [StageRecord.read(self.root / stage.name) for stage in self.stages]
        n_kept = sum(record is not None and record.done for record in known)
        about = f"{counted(len(known), 'stage')}, {n_kept} of them complete already"
        self.reporter.start(STAGES, len(known), n_kept, about)
        waiting = list(self.stages)
        running: dict[Future[StageRecord], Stage] = {}
        failure: BaseException | None = None
        with ThreadPoolExecutor(self.jobs) as pool:
            while waiting or running:
                while failure is None and len(running) < self.jobs:
                    stage = next((s for s in waiting if self._is_ready(s)), None)
                    if stage is None:
                        break
                    waiting.remove(stage)
                    running[pool.submit(self._settle, stage)] = stage
                if not running:
                    break
                try:
                    ended, _ = wait(running, return_when=FIRST_COMPLETED)
                except KeyboardInterrupt:
                    self.stop()
                    raise
                for future in ended:
                    stage = running.pop(future)
                    try:
                        self.records[stage.name] = future.result()
                    except BaseException as error:  # the first failure is the one to tell
                        failure = failure or error
                        continue
                    self._report(stage)
        if failure is not None:
            raise failure
        return self.records

    def _is_ready(self, stage: Stage) -> bool:
        return all(name in self.records for name in stage.after)

    def _report(self, stage: Stage) -> None:
        left = [s.cost for s in self.stages if s.name not in self.records]
        speed = self._cost_run / max(time.monotonic() - self._began, 1e-9)
        left_s = sum(left) / speed if speed > 0 else None
        seconds = self.records[stage.name].seconds if stage.name in self._ran else 0.0
        n_done = len(self.records)
        result = StageResult(stage, seconds, n_done, len(self.stages), left_s)
        self.reporter.result(result)
        self.reporter.advance(STAGES, n_done, result.left)
        if seconds:
            self.reporter.advance(stage.name, 1)

    def digest(self, stage: Stage) -> str:
        """Of everything on which a stage's result depends."""
        content = {
            "version": __version__,
            "commands": [self._relative(command) for command in stage.commands],
            "settings": stage.settings,
            "inputs": {name: self.records[name].outputs for name in stage.after},
            "files": [[path.name, path.stat().st_size] for path in stage.files],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _relative(self, command: Command) -> list[str]:
        return [word.replace(str(self.root), "@") for word in command]

    def _settle(self, stage: Stage) -> StageRecord:
        """The record of a stage that is complete afterwards."""
        folder, digest = self.root / stage.name, self.digest(stage)
        record = StageRecord.read(folder)
        if record is not None and record.digest == digest and record.done:
            if all((folder / name).exists() for name in record.outputs):
                return record
            record = None
        resumes = record is not None and record.digest == digest
        if resumes:
            assert record is not None
            record.sittings += 1
        else:
            if folder.exists():
                shutil.rmtree(folder)
            record = StageRecord(digest, commands=[" ".join(c) for c in stage.commands])
        folder.mkdir(parents=True, exist_ok=True)
        record.write(folder)
        how = "resumes" if resumes else "begins"
        self.reporter.start(stage.name, 1, about=f"{stage.name} {how}: {stage.about}")
        began = time.monotonic()

        def tell(text: str) -> None:
            self.reporter.advance(stage.name, 0, text)

        for command in stage.commands:
            self._run_command(stage, command, folder, record, tell)
        if stage.call is not None:
            stage.call(folder, tell)
        record.seconds = round(time.monotonic() - began, 2)
        record.outputs = {name: digest_of(folder / name) for name in stage.outputs}
        record.done = True
        record.write(folder)
        self._cost_run += stage.cost
        self._ran.add(stage.name)
        return record

    def _run_command(
        self, stage: Stage, command: Command, folder: Path, record: StageRecord, tell: Tell
    ) -> None:
        if "pretrain" in command[:3] and "--out" in command and "--cache-only" not in command:
            out = Path(command[command.index("--out") + 1])
            if (out / "recipe.toml").exists():
                command = (*command, "--resume")
        code = self.execute(command, folder / STDOUT_FILE, folder / LOG_FILE, tell)
        if code == _SOME_FAILED:
            record.notes.append(f"tsp {command[0]}: some videos could not be decoded")
        elif code:
            log = folder / LOG_FILE
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-4:]
            raise ReproductionError(
                f"Stage {stage.name}: `tsp {command[0]}` ended with code {code}. "
                + " ".join(line.strip() for line in lines),
                remedy=f"Read {log}; the same command resumes from here.",
            )


def digest_of(path: Path) -> str:
    """sha256 of a file, or of the names and contents of all files in a folder."""
    if not path.is_dir():
        return file_sha256(path)
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(path)}\0{file_sha256(file)}\n".encode())
    return digest.hexdigest()
