"""The report: one HTML page that needs nothing else, and the same tables as Markdown."""

from __future__ import annotations

import html
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from reproduction import pictures
from reproduction.outcome import (
    MATCHED,
    NONE,
    Group,
    Outcome,
    decision,
    markdown,
    planned_table,
    planned_tests,
    scene_table,
    verdict,
)
from reproduction.predictions import prediction_table
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
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 12px; }
th, td { padding: .25rem .45rem; border-bottom: 1px solid #8886; text-align: right;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tr.published { font-style: italic; opacity: .8; }
img { max-width: 100%; background: #fff; border-radius: 4px; }
pre { overflow-x: auto; font-size: 12px; }
small { opacity: .8; }
"""

_SCENES_NOTE = (
    "R: accuracy of single frames over that of clips, both above chance, on trimmed validation "
    "clips. Kept: accuracy of single frames in untrimmed actions over that on trimmed clips (gate: "
    "0.9). TAC on its training clips (gate: 80 %). K: how often the action head says the video's "
    "class in its background, as a share of how often it does in its actions."
)


def write_report(
    folder: Path,
    title: str,
    groups: Sequence[Group],
    settings: Mapping[str, Any],
    records: Mapping[str, StageRecord],
    remarks: Sequence[str] = (),
    explored: Sequence[Sequence[str]] = (),
) -> None:
    """Write the page, the tables and a summary for programs into a folder.

    Args:
        folder: Where to.
        title: Of the experiment.
        groups: Its data sets, or its cells by share of scenes.
        settings: All settings as plain values.
        records: Of the stages, for times and commands.
        remarks: What a reader has to know as well.
        explored: Header and rows of variations, if there are any.

    Raises:
        DependencyError: If matplotlib or scipy is not installed.
    """
    pictures.require_libraries()
    outcomes = [Outcome(group) for group in groups]
    tests = planned_tests(outcomes)
    verdicts = [verdict(outcome) for outcome in outcomes]
    facts = environment_facts(settings, groups, records)
    sections = [_Section("", verdicts=verdicts, remarks=remarks)]
    if foreseen := prediction_table(outcomes):
        sections.append(_Section("The predictions of the design", foreseen))
    if tests:
        sections.append(_Section("The tests of the design", planned_table(tests)))
    if all(outcome.group.share is not None for outcome in outcomes):
        picture = pictures.lead_over_share(outcomes)
        sections.append(_Section("Lead over the share of scenes", picture=picture))
        sections.append(_Section("What scenes give away", scene_table(outcomes), _SCENES_NOTE))
    for outcome in outcomes:
        sections += _group_sections(outcome)
    if explored:
        sections.append(_Section("Exploratory, without tests", [list(row) for row in explored]))
    sections.append(_Section("Run", [["what", "value"], *map(list, facts.items())]))
    with replacing(folder / TABLE) as aside:
        aside.write_text(_markdown(title, sections), encoding="utf-8")
    with replacing(folder / PAGE) as aside:
        aside.write_text(_page(title, sections, settings, records), encoding="utf-8")
    summary = {
        "verdicts": verdicts,
        "decisions": [decision(c) if (c := o.contrast(NONE, MATCHED)) else None for o in outcomes],
        "tests": [
            {
                "text": test.text,
                "role": test.role,
                "differences": list(test.contrast.differences),
                "interval": list(test.contrast.interval),
                "p": test.p,
                "sign_flip_p": test.contrast.sign_flip_p,
                "rejected": test.rejected,
            }
            for test in tests
        ],
        "figures": {outcome.group.title: outcome.figures for outcome in outcomes},
        "facts": facts,
    }
    with replacing(folder / SUMMARY) as aside:
        aside.write_text(json.dumps(summary, indent=1), encoding="utf-8")


@dataclass(frozen=True)
class _Section:
    """One part of the report, for both forms of it."""

    title: str
    table: list[list[str]] | None = None
    note: str = ""
    picture: str | None = None
    verdicts: Sequence[str] = ()
    remarks: Sequence[str] = ()


def _group_sections(outcome: Outcome) -> list[_Section]:
    group = outcome.group
    spread = "Mean ± standard deviation over the seeds" if len(group.seeds) > 1 else "One seed"
    note = (
        f"{spread}; mAP, AR, AUC and accuracies in percent; separation is a silhouette from -1 to "
        "1; K is how often the action head says the video's class in its background, as a share of "
        f"how often it does in its actions. {group.note}"
    ).strip()
    sections = [
        _Section(group.title, outcome.table(), note),
        _Section(f"{group.title}: leads", outcome.contrast_table()),
        _Section(f"{group.title}: errors", picture=pictures.error_bars(outcome)),
    ]
    if key := pictures.example_video(group):
        picture = pictures.similarity_picture(group, key)
        sections.append(_Section(f"{group.title}: similarity of the clips of {key}",
                                 picture=picture))  # fmt: skip
    if len(group.seeds) > 1:
        sections.append(_Section(f"{group.title}: every seed", outcome.seed_table()))
    return sections


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


def _markdown(title: str, sections: Sequence[_Section]) -> str:
    parts = [*sections[0].verdicts, f"# {title}", *sections[0].remarks]
    for section in sections[1:]:
        if section.table is not None:
            parts += [f"## {section.title}", markdown(section.table), section.note]
    return "\n\n".join(part for part in parts if part) + "\n"


def _page(
    title: str,
    sections: Sequence[_Section],
    settings: Mapping[str, Any],
    records: Mapping[str, StageRecord],
) -> str:
    body = [f'<p class="verdict">{html.escape(text)}</p>' for text in sections[0].verdicts]
    body.append(f"<h1>{html.escape(title)}</h1>")
    body += [f"<p>{html.escape(remark)}</p>" for remark in sections[0].remarks]
    for section in sections[1:]:
        body.append(f"<h2>{html.escape(section.title)}</h2>")
        if section.table is not None:
            body.append(_html_table(section.table))
        if section.note:
            body.append(f"<p><small>{html.escape(section.note)}</small></p>")
        if section.picture is not None:
            alt = html.escape(section.title, quote=True)
            body.append(f'<p><img src="{section.picture}" alt="{alt}"></p>')
    times = [["stage", "seconds", "commands"]]
    times += [[n, f"{r.seconds:.0f}", str(len(r.commands))] for n, r in records.items()]
    commands = "\n".join(f"tsp {c}" for record in records.values() for c in record.commands)
    body.append(f"<details><summary>Stages</summary>{_html_table(times)}</details>")
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


def _html_table(rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in rows[0])
    lines = [f"<tr>{head}</tr>"]
    for row in rows[1:]:
        kind = ' class="published"' if row[0].endswith(", published") else ""
        lines.append(f"<tr{kind}>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>")
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'
