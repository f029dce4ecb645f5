"""The README tells the truth: its commands, options, weights and reasons exist."""

from __future__ import annotations

import importlib
import itertools
import re
import subprocess
from pathlib import Path

import click
import pytest

from tspcli.cli.main import COMMANDS
from tspcli.encoders.weights import list_weights
from tspcli.errors import VIDEO_REASONS

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CODE_LINES = [
    line.strip()
    for language, block in re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
    if language in ("", "sh", "bash")
    for line in block.replace("\\\n", " ").splitlines()
]


def expand_braces(text: str) -> list[str]:
    """``a-{b,c}`` as a shell expands it."""
    parts = re.split(r"\{([^{}]*)\}", text)
    choices = [part.split(",") if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(words) for words in itertools.product(*choices)]


def tsp_calls() -> list[list[str]]:
    calls = []
    for line in CODE_LINES:
        words = line.partition("#")[0].split()
        if "tsp" in words:
            call = words[words.index("tsp") + 1 :]
            calls.append(list(itertools.takewhile(lambda w: w not in ("&", "|", ">", "&&"), call)))
    return calls


@pytest.mark.parametrize("call", tsp_calls(), ids=" ".join)
def test_each_command_line_is_one_that_the_program_takes(call: list[str]) -> None:
    command = importlib.import_module(COMMANDS[call[0]].module).command
    context = click.Context(command, info_name=call[0])
    rest = call[1:]
    while isinstance(command, click.Group):
        found = command.get_command(context, rest[0])
        assert found is not None, rest[0]
        command, rest = found, rest[1:]
        context = click.Context(command, info_name=command.name)
    options = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
    used = {word.partition("=")[0] for word in rest if word.startswith("-")}
    assert used <= options


def test_commands_named_in_the_text_exist() -> None:
    named = set(re.findall(r"`tsp ([a-z][a-z-]*)", README))
    assert named <= set(COMMANDS)
    assert {"extract", "doctor", "weights", "sample-videos"} <= named | {c[0] for c in tsp_calls()}


def test_make_targets_exist() -> None:
    named = set(re.findall(r"\bmake ([a-z-]+)\b", "\n".join(CODE_LINES)))
    named |= set(re.findall(r"`make ([a-z-]+)`", README))
    assert {"demo", "test"} <= named
    for target in sorted(named):
        command = ["make", "--dry-run", "--no-print-directory", target]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_table_of_weights_is_the_registry() -> None:
    rows = re.findall(r"^\| (`.*?) \|", README, re.MULTILINE)
    names = {w.name for w in list_weights()}
    listed = {
        name for row in rows for text in re.findall(r"`(.*?)`", row) for name in expand_braces(text)
    }
    assert names - listed == set()


def test_all_reasons_are_named() -> None:
    section = README.partition("## Damaged videos")[2].partition("## ")[0]
    assert set(VIDEO_REASONS) <= set(re.findall(r"`([a-z-]+)`", section))


def test_links_and_pictures_are_there() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README) + re.findall(r'src="([^"]+)"', README)
    assert targets
    missing = [t for t in targets if "://" not in t and not (ROOT / t).exists()]
    assert missing == []


def test_anchors_within_the_readme_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= slugs
