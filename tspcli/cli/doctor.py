"""``tsp doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tspcli.cli.options import PATH, json_option
from tspcli.cli.rules import RuledCommand, ruled_option
from tspcli.core.text import counted

if TYPE_CHECKING:
    from tspcli.store.integrity import Examination

_COLOURS = {"ok": "green", "note": "yellow", "lack": "red"}


@click.command("doctor", cls=RuledCommand)
@click.argument("store", required=False, metavar="[FEATS.h5]", type=PATH)
@ruled_option(
    "--repair",
    is_flag=True,
    requires=["store"],
    help="Write the intact videos of FEATS.h5 into a new store.",
)
@json_option("the findings")
def command(store: Path | None, repair: bool, as_json: bool) -> int:
    """Check this installation: versions, decoders, devices, memory, cache; or check a store.

    Everything that is missing comes with its remedy. The exit code is 0 if extraction can work, 1
    if not.

    With FEATS.h5, every byte of the store is compared with its checksums: exit code 1 if it is
    damaged. Files of other programs carry none and are only read. --repair saves what is intact
    into a store of the same name and keeps the damaged file next to it: exit code 3 if videos are
    lost, which `tsp extract` then computes again.

    \b
    Example:
      tsp doctor
      tsp doctor --json > doctor.json
      tsp doctor feats.h5
      tsp doctor feats.h5 --repair
    """
    if store is not None:
        return _repair(store, as_json) if repair else _examine(store, as_json)
    from tspcli.cli.console import out_console, print_json, printable
    from tspcli.doctor import diagnose

    diagnosis = diagnose()
    exit_code = 0 if diagnosis.can_extract else 1
    if as_json:
        print_json(diagnosis.to_dict())
        return exit_code
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    group = ""
    for check in diagnosis.findings:
        if check.group != group:
            group = check.group
            table.add_row("", Text(group, style="bold"), "")
        mark = Text(check.status, style=_COLOURS[check.status])
        found = Text(printable(check.found))
        if check.remedy:
            found.append(f"\n→ {printable(check.remedy)}", style=_COLOURS[check.status])
        table.add_row(mark, check.name, found)
    console = out_console()
    console.print(table)
    console.print()
    if diagnosis.can_extract:
        console.print("Extraction can work here.", style="green")
    else:
        lacks = ", ".join(diagnosis.lacks)
        console.print(f"Extraction cannot work here until this is fixed: {lacks}.")
    return exit_code


def _examine(store: Path, as_json: bool) -> int:
    from tspcli.cli.console import print_json
    from tspcli.store.integrity import examine_store

    found = examine_store(store)
    if as_json:
        print_json(found.to_dict())
    else:
        _show(found)
    return 1 if found.is_damaged else 0


def _repair(store: Path, as_json: bool) -> int:
    from tspcli.cli.console import out_console, print_json, say
    from tspcli.cli.main import EXIT_SOME_FAILED
    from tspcli.store.integrity import repair_store

    repair = repair_store(store)
    if as_json:
        print_json(repair.to_dict())
        return EXIT_SOME_FAILED if repair.lost else 0
    _show(repair.found, promise=False)
    lines = [f"{store} now holds {counted(len(repair.kept), 'video')}."]
    if not repair.found.is_damaged:
        lines = ["There is nothing to repair."]
        if repair.found.lacks_only_an_index:
            lines = ["An index was added."]
        elif repair.found.notes:
            lines = ["Nothing else had to be repaired."]
    if repair.original is not None:
        lines.append(f"The damaged file is kept as {repair.original}.")
    if repair.lost:
        verb, them = ("is", "it") if len(repair.lost) == 1 else ("are", "them")
        lost = f"{counted(len(repair.lost), 'video')} {verb} lost"
        lines.append(f"{lost}: `tsp extract` computes {them} again.")
    say("\n".join(lines), console=out_console())
    return EXIT_SOME_FAILED if repair.lost else 0


def _show(found: Examination, *, promise: bool = True) -> None:
    from tspcli.cli.console import out_console, say

    console = out_console()
    for problem in found.problems:
        say(problem, "red", console=console)
    for key, why in sorted(found.damaged.items()):
        say(f"damaged: {key}: {why}", "red", console=console)
    for note in found.notes:
        say(note, "yellow", console=console)
    counts = f"{len(found.intact)} intact, {len(found.damaged)} damaged"
    if found.unchecked:
        counts += f", {len(found.unchecked)} without a checksum"
    say(f"{found.path}: {counts}. {_verdict(found, promise)}", console=console)


def _verdict(found: Examination, promise: bool) -> str:
    if found.is_damaged:
        text = "It is damaged."
        if not promise:
            return text
        if found.savable:
            return f"{text} --repair saves {counted(len(found.savable), 'video')}."
        return f"{text} --repair can save nothing of it."
    if found.is_whole:
        return "It is intact: everything in it matches its checksums."
    if found.intact:
        return "It can be read completely; the videos with checksums match them."
    return "It can be read completely, but it has no checksums to verify."
