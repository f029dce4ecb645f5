"""Write constraints.txt: the versions that pip picks today, for every supported Python.

    python tools/lock_constraints.py python3.10 python3.11 python3.12 python3.13

Each interpreter's pip resolves the project with all its extras, without installing anything. A
package whose version is the same everywhere is one line; where versions differ, each line carries
a marker. The file holds names and versions only.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "constraints.txt"
EXTRAS = "torchcodec,parquet,plots,reproduce,train,ray,openvino,view,dev"
HEADER = f"""\
# Versions for a repeatable install; what the package itself asks for is in pyproject.toml.
# Made by tools/lock_constraints.py, one resolution for each Python; extras: {EXTRAS}.
"""


def python_version(python: str) -> str:
    """The "3.11" of an interpreter."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run(
        [python, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def resolve(python: str) -> dict[str, str]:
    """Name and version of everything that a fresh environment of ``python`` would get."""
    with tempfile.TemporaryDirectory() as folder:
        venv, report = Path(folder, "venv"), Path(folder, "report.json")
        subprocess.run([python, "-m", "venv", str(venv)], check=True)
        pip = [str(venv / "bin" / "python"), "-m", "pip", "--quiet"]
        subprocess.run([*pip, "install", "--upgrade", "pip"], check=True)
        command = [*pip, "install", "--dry-run", "--ignore-installed", "--report", str(report)]
        subprocess.run([*command, f"{ROOT}[{EXTRAS}]"], check=True)
        installed = json.loads(report.read_text())["install"]
    found = {i["metadata"]["name"]: i["metadata"]["version"] for i in installed}
    found = {re.sub(r"[-_.]+", "-", name).lower(): v for name, v in found.items()}
    del found["tspcli"]
    return found


def merge(resolved: dict[str, dict[str, str]]) -> list[str]:
    """The lines for {python version: {name: package version}}."""
    lines = []
    for name in sorted({name for versions in resolved.values() for name in versions}):
        by_version: dict[str, list[str]] = {}
        for python, versions in resolved.items():
            if name in versions:
                # A local version ("2.13.0+cpu") is a build of this machine, not of the index.
                by_version.setdefault(versions[name].partition("+")[0], []).append(python)
        if len(by_version) == 1:
            lines.append(f"{name}=={next(iter(by_version))}")
            continue
        for version, pythons in by_version.items():
            marker = " or ".join(f"python_version == '{p}'" for p in pythons)
            lines.append(f"{name}=={version} ; {marker}")
    return lines


def main(pythons: list[str]) -> int:
    """Resolve for each interpreter and write the file."""
    if not pythons:
        print(__doc__, file=sys.stderr)
        return 2
    resolved = {}
    for python in pythons:
        version = python_version(python)
        print(f"resolving for Python {version}", file=sys.stderr)
        resolved[version] = resolve(python)
    TARGET.write_text(HEADER + "\n".join(merge(resolved)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
