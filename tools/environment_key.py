"""Print what the environment of a checkout depends on, as three words for the Makefile.

1. the interpreter, such as ``cpython-3.11.7-x86_64``: another one needs a new environment;
2. a digest of that, of the pinned versions, of the declared dependencies and of the extras that the
   Makefile installs: another one needs an installation;
3. a digest of the project's description and place: another one needs the project itself to be
   installed anew, which is quick.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 10)


def declared_dependencies(pyproject: str) -> str:
    """The part of pyproject.toml that decides what is installed, or all of it on Python 3.10."""
    if sys.version_info < (3, 11):
        return pyproject
    import tomllib

    project = tomllib.loads(pyproject)["project"]
    wanted = [project["dependencies"], project["optional-dependencies"]]
    return json.dumps(wanted, sort_keys=True)


def digest(*texts: str) -> str:
    """Twelve hexadecimal digits for some texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def main() -> int:
    """Print the three words, or say what is wrong with this interpreter."""
    if sys.version_info < OLDEST:
        print(
            f"Python {platform.python_version()} is too old, 3.10 to 3.13 are supported: "
            "make PYTHON=python3.11 ...",
            file=sys.stderr,
        )
        return 1
    name, version = platform.python_implementation().lower(), platform.python_version()
    interpreter = f"{name}-{version}-{platform.machine()}"
    pyproject, setup, pins, makefile = (
        (ROOT / file).read_text(encoding="utf-8")
        for file in ("pyproject.toml", "setup.py", "constraints.txt", "Makefile")
    )
    installed = [line for line in makefile.splitlines() if "call install," in line]
    environment = digest(interpreter, pins, declared_dependencies(pyproject), *installed)
    project = digest(str(ROOT), pyproject, setup)
    print(interpreter, environment, project)
    return 0


if __name__ == "__main__":
    sys.exit(main())
