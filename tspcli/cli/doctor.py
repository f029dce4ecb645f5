"""``tsp doctor``."""

from __future__ import annotations

import click

_COLOURS = {"ok": "green", "note": "yellow", "lack": "red"}


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def command(as_json: bool) -> int:
    """Check this installation: versions, decoders, devices, memory, cache.

    Each lack comes with its remedy. The exit code is 0 if extraction can work, 1 if not.

    \b
    Example:
      tsp doctor
      tsp doctor --json > doctor.json
    """
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
    for check in diagnosis.checks:
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
        lacks = [check.name for check in diagnosis.checks if check.status == "lack"]
        console.print(f"Extraction cannot work before this is put right: {', '.join(lacks)}.")
    return exit_code
