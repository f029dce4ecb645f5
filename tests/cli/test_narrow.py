"""Tables on a terminal of 40 columns: nothing is cut off, nothing is wider."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from tests.builders.refusals import refused
from tspcli import doctor
from tspcli.cli.doctor import command as doctor_command
from tspcli.cli.weights import command as weights
from tspcli.doctor import Diagnosis, Finding
from tspcli.encoders.weights import list_weights
from tspcli.errors import UsageError

COLUMNS = 40


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))


def printed(command: object, *words: str) -> tuple[str, str]:
    """What a command prints, and the same as one line of words."""
    result = CliRunner().invoke(command, words, standalone_mode=False, catch_exceptions=False)
    text = result.stdout
    # The last lines are sentences that a terminal wraps.
    table = text.partition("\n\n")[0]
    assert max(map(len, table.splitlines())) <= COLUMNS
    assert "…" not in table
    return text, " ".join(text.split())


def test_weights() -> None:
    text, words = printed(weights, "list")
    for entry in list_weights():
        assert entry.name in text.replace("\n", "") and entry.trained_on in words
    assert f"width {entry.feature_dim}" in words


def test_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    found = "missing, and said in many more words than fit on a line"
    lack = Finding("decoders", "torchcodec", "lack", found, "pip install torchcodec")
    monkeypatch.setattr(doctor, "diagnose", lambda: Diagnosis((lack,), {}))
    _, words = printed(doctor_command)
    for part in ("torchcodec", *found.split(), "→ pip"):
        assert part in words


def test_repairing_nothing_is_refused() -> None:
    with refused(UsageError, option="repair"):
        CliRunner().invoke(
            doctor_command, ["--repair"], standalone_mode=False, catch_exceptions=False
        )
