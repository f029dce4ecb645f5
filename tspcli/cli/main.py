"""The ``tsp`` command: finds the subcommand, runs it, turns errors into messages and exit codes."""

from __future__ import annotations

import atexit
import errno
import importlib
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

import click

from tspcli.core.version import __version__
from tspcli.errors import TspError, UsageError

EXIT_ERROR = 1
EXIT_SOME_FAILED = 3
"""Finished, but some videos failed; each is named on the screen and in the report."""
EXIT_INTERRUPTED = 130
"""Ctrl-C; 143 after SIGTERM: 128 and the signal's number, as shells and schedulers expect."""


class Entry(NamedTuple):
    """A subcommand that is imported only when it is used."""

    module: str
    summary: str


COMMANDS: dict[str, Entry] = {
    "extract": Entry("tspcli.cli.extract", "Compute clip features of videos into a store."),
    "gvf": Entry("tspcli.cli.gvf", "Compute global video features for pretraining."),
    "pretrain": Entry("tspcli.cli.pretrain", "Train an encoder on untrimmed videos (TSP or TAC)."),
    "annotations": Entry(
        "tspcli.cli.annotations", "Convert and check annotations for pretraining."
    ),
    "export": Entry("tspcli.cli.export", "Write features as another program reads them."),
    "inspect": Entry("tspcli.cli.inspect", "Show what a store holds."),
    "plot": Entry("tspcli.cli.plot", "Draw the features of one video."),
    "view": Entry("tspcli.cli.view", "Look at features, annotations, predictions in the browser."),
    "search": Entry("tspcli.cli.search", "Find moments like an example in all videos."),
    "compare": Entry("tspcli.cli.compare", "Report how two stores differ."),
    "merge": Entry("tspcli.cli.merge", "Join stores or shards into one."),
    "store": Entry("tspcli.cli.store", "List, rename and remove the videos of a store."),
    "localize": Entry("tspcli.cli.localize", "Find actions in videos, and measure how well."),
    "recipes": Entry("tspcli.cli.recipes", "List and show recipes of published features."),
    "weights": Entry("tspcli.cli.weights", "List, fetch and convert pretrained weights."),
    "doctor": Entry("tspcli.cli.doctor", "Check this installation, with a fix for each problem."),
    "sample-videos": Entry("tspcli.cli.sample_videos", "Fetch a few free videos to try things on."),
}


MOVED = {"reproduce": "`tsp reproduce` is now `make reproduce`, in a clone of the repository."}
"""Commands of earlier versions, and where to find them now."""


class LazyGroup(click.Group):
    """A group that knows its commands' names and summaries without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = importlib.import_module(entry.module).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name in MOVED:
            raise click.UsageError(MOVED[name], ctx)
        if name and name not in COMMANDS and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"There is no command {name!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tsp")
def cli() -> None:
    """Clip features of untrimmed videos for temporal action localization.

    Every command also takes --debug, which shows the traceback of an error.

    \b
    Example:
      tsp extract --videos my_videos/ --out feats.h5
      tsp inspect feats.h5
    """


def main(argv: Sequence[str] | None = None, command: click.Command | None = None) -> NoReturn:
    """Run ``tsp`` and exit with 0 (done), 1 (an error), 2 (wrong usage) or 3 (some videos failed).

    Args:
        argv: The arguments, ``sys.argv[1:]`` if not given.
        command: A command to run in place of ``tsp``, with the same exit codes and messages.
    """
    sys.exit(_exit_code(argv, command))


def entry() -> NoReturn:
    """Run ``tsp`` as a process of its own, and leave at once when it is done."""
    code = _exit_code()
    if code >= EXIT_INTERRUPTED or _may_leave_at_once():
        _leave_at_once(code)
    sys.exit(code)


def _exit_code(argv: Sequence[str] | None = None, command: click.Command | None = None) -> int:
    _open_closed_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = bool(os.environ.get("TSPCLI_DEBUG"))
    if "--debug" in arguments:
        debug = True
        arguments.remove("--debug")
    return _run(command or cli, arguments, debug)


def _open_closed_streams() -> None:
    """Let what is written to streams that our caller has closed go nowhere.

    Otherwise the next file that is opened, such as a store, would be what others take for them.
    """
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # Never closed: it lives as long as the process.
            nowhere = open(os.devnull, "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
            setattr(sys, name, nowhere)


def _may_leave_at_once() -> bool:
    """Whether nobody has anything left to do here: no thread, no profiler, no debugger."""
    waited_for = [thread for thread in threading.enumerate() if not thread.daemon]
    # Python 3.12 and later know who watches by number.
    monitoring = getattr(sys, "monitoring", None)
    watchers = [sys.gettrace(), sys.getprofile()]
    watchers += [monitoring.get_tool(number) for number in range(6)] if monitoring else []
    return waited_for == [threading.main_thread()] and not any(watchers)


def _leave_at_once(code: int) -> NoReturn:
    """End the process without taking torch down, which takes 0.8 s and, once stopped, longer."""
    with suppress(Exception):  # as Python continues, too
        if code < EXIT_INTERRUPTED:
            atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _run(command: click.Command, arguments: list[str], debug: bool) -> int:
    try:
        prog_name = "tsp" if command is cli else command.name
        result = command.main(arguments, prog_name=prog_name, standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.Abort:
        return EXIT_INTERRUPTED
    except click.ClickException as error:
        if not is_reported_elsewhere(error):
            with suppress(OSError):
                error.show()
        return error.exit_code
    except KeyboardInterrupt:
        _complain("Interrupted.")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except TspError as error:
        if debug:
            raise
        if not is_reported_elsewhere(error):
            from tspcli.cli.console import show_error

            show_error(error)
        return error.exit_code
    except Exception as error:  # a fault of ours, reported in one line instead of a traceback
        if debug:
            raise
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            # Any argument may be such a path, and whoever looks at it first meets this.
            from tspcli.core.files import too_long

            words = too_long(Path(os.fsdecode(error.filename or "?")))
            _complain(f"Error: {words}")
            return UsageError.exit_code
        if isinstance(error, OSError) and error.filename is None and error.errno == errno.ENOSPC:
            _complain("Error: A disk is full, perhaps the one that the output goes to.")
            return EXIT_ERROR
        _complain(
            f"Error: {type(error).__name__}: {error}\n"
            "This is a bug in tspcli. Run the command with --debug to see where it happened."
        )
        return EXIT_ERROR


def _complain(text: str) -> None:
    """Print to stderr, if that can be written; the exit code does not depend on it."""
    with suppress(OSError):
        click.echo(text, err=True)


def is_reported_elsewhere(error: Exception) -> bool:
    """Whether another process of this command, which a launcher started too, shows this error."""
    if isinstance(error, TspError) and "reported_elsewhere" in vars(error):
        return error.reported_elsewhere  # the processes have agreed on who reports it
    # torchrun gives every process the same words, in which each finds the same fault.
    together = "TORCHELASTIC_RUN_ID" in os.environ
    in_words = isinstance(error, (click.ClickException, UsageError))
    return together and in_words and os.environ.get("LOCAL_RANK", "0") != "0"
