"""Asks the package index about known vulnerabilities in the pinned dependencies.

It needs an index that answers such questions. Where it does not, or where there is no network, that
is said plainly and the exit code is 0, unless --strict is given: no finding is not a clean bill.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOUND = 1
_TIMEOUT_S = 300
CANARY = ["jinja2==2.10"]
"""Known to be vulnerable: an index that does not say so would call anything clean."""


def pinned() -> list[str]:
    """The pinned requirements that apply to this interpreter, without build numbers."""
    from packaging.requirements import Requirement

    lines = (ROOT / "constraints.txt").read_text().splitlines()
    chosen: dict[str, str] = {}
    for line in lines:
        text = line.partition("#")[0].strip()
        if not text:
            continue
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate():
            chosen[requirement.name] = f"{requirement.name}{requirement.specifier}"
    return list(chosen.values())


def audit() -> tuple[str, str]:
    """(``clean``, ``found`` or ``impossible``, what was said)."""
    if find_spec("pip_audit") is None:
        return "impossible", "pip-audit is not installed: pip install pip-audit"
    verdict, said = ask(CANARY)
    if verdict == "clean":
        return "impossible", f"the index knows of no fault even in {CANARY[0]}"
    return ask(pinned()) if verdict == "found" else (verdict, said)


def ask(requirements: list[str]) -> tuple[str, str]:
    """What pip-audit says of some requirements."""
    with tempfile.TemporaryDirectory() as folder:
        listing = Path(folder) / "requirements.txt"
        listing.write_text("\n".join(requirements) + "\n")
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(listing), "--no-deps"]
        command += ["--disable-pip", "--progress-spinner", "off", "--timeout", "20"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return "impossible", f"no answer within {_TIMEOUT_S} s"
    said = (done.stdout + done.stderr).strip()
    if done.returncode == 0:
        return "clean", said
    if "Found" in done.stderr and "vulnerab" in done.stderr:
        return "found", said
    return "impossible", said.splitlines()[-1] if said else f"exit status {done.returncode}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strict", action="store_true", help="fail where no audit was possible")
    strict = parser.parse_args().strict
    verdict, said = audit()
    if verdict == "impossible":
        print(f"AUDIT NOT DONE: the dependencies were not checked ({said}).")
        return FOUND if strict else 0
    print(said)
    print(f"AUDIT: {verdict}, {len(pinned())} pinned dependencies.")
    return FOUND if verdict == "found" else 0


if __name__ == "__main__":
    sys.exit(main())
