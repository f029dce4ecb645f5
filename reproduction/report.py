"""The report: one HTML page that needs nothing else, and the same tables as Markdown."""

from __future__ import annotations

import html
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from reproduction import pictures
from reproduction.outcome import Group, Outcome, markdown
from reproduction.stages import StageRecord
from tspcli import __version__
from tspcli.core.files import replacing

PAGE, TABLE, SUMMARY = "report.html", "report.md", "summary.json"

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1280px; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.verdict { font-size: 1.1rem; font-weight: 600; border-left: .4rem solid #0072b2;
  padding: .3rem .8rem; }
.verdict.no { border-color: #d55e00; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 12px; }
th, td { padding: .25rem .45rem; border-bottom: 1px solid #8886; text-align: right;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tr.published { font-style: italic; opacity: .8; }
td.no { color: #d55e00; font-weight: 700; }
img { max-width: 100%; background: #fff; border-radius: 4px; }
pre { overflow-x: auto; font-size: 12px; }
small { opacity: .8; }
"""


def write_report(
    folder: Path,
    title: str,
    groups: Sequence[Group],
    settings: Mapping[str, Any],
    records: Mapping[str, StageRecord],
    remarks: Sequence[str] = (),
) -> None:
    """Write the page, the tables and a summary for programs into a folder.

    Args:
        folder: Where to.
        title: Of the experiment.
        groups: Its data sets.
        settings: All settings as plain values.
        records: Of the stages, for times and commands.
        remarks: What a reader has to know beside the tables.

    Raises:
        DependencyError: If matplotlib is not installed.
    """
    pictures.require_matplotlib()
    outcomes = [Outcome(group) for group in groups]
    facts = environment_facts(settings, groups, records)
    text = _markdown(title, outcomes, facts, remarks)
    with replacing(folder / TABLE) as aside:
        aside.write_text(text, encoding="utf-8")
    with replacing(folder / PAGE) as aside:
        aside.write_text(
            _page(title, outcomes, facts, settings, records, remarks), encoding="utf-8"
        )
    summary = {
        "verdicts": [outcome.verdict() for outcome in outcomes],
        "confirmed": [outcome.confirmed for outcome in outcomes],
        "figures": {outcome.group.title: outcome.figures for outcome in outcomes},
        "facts": facts,
    }
    with replacing(folder / SUMMARY) as aside:
        aside.write_text(json.dumps(summary, indent=1), encoding="utf-8")


def environment_facts(
    settings: Mapping[str, Any], groups: Sequence[Group], records: Mapping[str, StageRecord]
) -> dict[str, str]:
    """Versions, hardware, seeds and times, readable."""
    facts = {
        "scale": str(settings.get("name", "")),
        "backbone": str(settings.get("backbone", "")),
        "seeds": ", ".join(map(str, groups[0].seeds)),
        "stages": f"{len(records)}, {sum(r.seconds for r in records.values()) / 60:.1f} minutes in "
        f"sum, {settings.get('jobs', 1)} at a time",
        "resumed stages": str(sum(r.sittings > 1 for r in records.values())),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "tspcli": __version__,
    }
    accelerator = _accelerator()
    if accelerator:
        facts["accelerator"] = accelerator
    names = ("torch", "torchvision", "numpy", "h5py", "av", "opencv-python-headless")
    facts["packages"] = ", ".join(f"{name} {_version(name)}" for name in names)
    notes = [f"{name}: {note}" for name, record in records.items() for note in record.notes]
    if notes:
        facts["notes"] = "; ".join(notes)
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _accelerator() -> str:
    import torch

    if not torch.cuda.is_available():
        return ""
    return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def _markdown(
    title: str, outcomes: Sequence[Outcome], facts: Mapping[str, str], remarks: Sequence[str]
) -> str:
    parts = [*(outcome.verdict() for outcome in outcomes), f"# {title}"]
    parts += list(remarks)
    for outcome in outcomes:
        parts += [f"## {outcome.group.title}", markdown(outcome.table()), _legend(outcome.group)]
        parts += ["### Length of clips", markdown(outcome.clip_length_table())]
        parts += ["### Expected and got", markdown(outcome.expectation_table())]
        if len(outcome.group.seeds) > 1:
            parts += ["### Every seed", markdown(outcome.seed_table())]
    parts += ["## Run", markdown([["what", "value"], *map(list, facts.items())])]
    return "\n\n".join(parts) + "\n"


def _page(
    title: str,
    outcomes: Sequence[Outcome],
    facts: Mapping[str, str],
    settings: Mapping[str, Any],
    records: Mapping[str, StageRecord],
    remarks: Sequence[str],
) -> str:
    body = [
        f'<p class="verdict{"" if o.confirmed else " no"}">{html.escape(o.verdict())}</p>'
        for o in outcomes
    ]
    body.append(f"<h1>{html.escape(title)}</h1>")
    body += [f"<p>{html.escape(remark)}</p>" for remark in remarks]
    for outcome in outcomes:
        body += _group_section(outcome)
    body += ["<h2>Run</h2>", _html_table([["what", "value"], *map(list, facts.items())])]
    times = [["stage", "seconds", "commands"]]
    times += [
        [name, f"{record.seconds:.0f}", str(len(record.commands))]
        for name, record in records.items()
    ]
    body.append(f"<details><summary>Stages</summary>{_html_table(times)}</details>")
    commands = "\n".join(
        f"tsp {command}" for record in records.values() for command in record.commands
    )
    for name, text in (
        ("Commands", commands),
        ("Settings", json.dumps(settings, indent=1, default=str)),
    ):
        body.append(f"<details><summary>{name}</summary><pre>{html.escape(text)}</pre></details>")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _legend(group: Group) -> str:
    """What the figures of a table are."""
    spread = "Mean ± standard deviation over the seeds" if len(group.seeds) > 1 else "One seed"
    text = (
        f"{spread}; mAP, AR, AUC and accuracies in percent; separation is a silhouette from -1 to "
        f"1. {group.published_note}"
    )
    return text.strip()


def _group_section(outcome: Outcome) -> list[str]:
    group = outcome.group
    body = [f"<h2>{html.escape(group.title)}</h2>", _html_table(outcome.table())]
    body.append(f"<p><small>{html.escape(_legend(group))}</small></p>")
    body += ["<h3>Expected and got</h3>", _html_table(outcome.expectation_table())]
    body += ["<h3>Length of clips</h3>", _html_table(outcome.clip_length_table())]
    body.append("<h3>Localization</h3>")
    body.append(_image(pictures.localization_curves(group), "mAP over tIoU; recall over proposals"))
    body.append("<h3>Training</h3>")
    body.append(_image(pictures.training_curves(group), "losses and accuracies over epochs"))
    keys = pictures.example_videos(group)
    body.append("<h3>Similarity of the clips of a video, TAC and TSP</h3>")
    for key in keys[:1]:
        body.append(_image(pictures.similarity_picture(group, key), f"similarities, {key}"))
    body.append("<h3>Predicted timelines</h3>")
    body.append(
        "<p><small>The first, the middle and the last validation video by name.</small></p>"
    )
    body += [_image(pictures.timeline_picture(group, key), f"timeline, {key}") for key in keys]
    if len(group.seeds) > 1:
        rows = _html_table(outcome.seed_table())
        body.append(f"<details><summary>Every seed</summary>{rows}</details>")
    return body


def _html_table(rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in rows[0])
    lines = [f"<tr>{head}</tr>"]
    for row in rows[1:]:
        kind = ' class="published"' if row[0].endswith(", published") else ""
        cells = "".join(
            f'<td class="no">{cell}</td>' if cell == "NO" else f"<td>{html.escape(cell)}</td>"
            for cell in row
        )
        lines.append(f"<tr{kind}>{cells}</tr>")
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _image(uri: str, text: str) -> str:
    return f'<p><img src="{uri}" alt="{html.escape(text)}"></p>'
