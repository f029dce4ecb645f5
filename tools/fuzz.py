"""Coverage-guided fuzzing of the parsers that are ours, with atheris, each in a process of its own.

    python tools/fuzz.py --seconds 60 [--only "index of a store"]

Begins from the good files of ``tests/packaging/parsers.py``; anything but a ``TspError`` is a
finding, which is printed with the input that brings it out (in base64).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

TOLD = ("RuntimeError: ", "ERROR: libFuzzer", "Base64: ")
ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))


def fuzz_one(name: str, seconds: int, folder: Path) -> None:
    """Fuzz one parser in this process; does not return."""
    import atheris

    with atheris.instrument_imports(include=["tspcli"]):
        from tests.packaging.parsers import complaint, parsers

        parser = next(p for p in parsers() if p.name == name)
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, data in enumerate(parser.good(folder)):
        (corpus / str(number)).write_bytes(data)
    path = folder / f"input{parser.suffix}"

    def one_input(data: bytes) -> None:
        path.write_bytes(data)
        found = complaint(parser, path)
        if found is not None:
            raise RuntimeError(f"{name}: {found}")

    atheris.Setup(
        [
            sys.argv[0],
            str(corpus),
            f"-max_total_time={seconds}",
            "-max_len=65536",
            "-rss_limit_mb=4096",
            "-timeout=30",
            f"-artifact_prefix={folder}/",
        ],
        one_input,
    )
    atheris.Fuzz()


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=int, default=60)
    options.add_argument("--only")
    options.add_argument("--worker", type=Path, metavar="FOLDER")
    chosen = options.parse_args()
    if chosen.worker is not None:
        fuzz_one(chosen.only, chosen.seconds, chosen.worker)
        return 0
    try:
        import atheris  # noqa: F401 (whether it is there)
    except ImportError:
        print("FUZZING NOT DONE: atheris is not installed (pip install atheris).")
        return 1
    from tests.packaging.parsers import parsers

    findings = 0
    for name in [p.name for p in parsers() if chosen.only in (None, p.name)]:
        # The worker ends without cleaning up after itself.
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--worker", folder, "--only", name]
            command += ["--seconds", str(chosen.seconds)]
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", check=False
            )
        said = (done.stdout + done.stderr).splitlines()
        findings += done.returncode != 0
        print(f"{name}: {'a finding' if done.returncode else 'nothing'}")
        told = [x for x in said if "cov:" in x][-1:]
        if done.returncode:
            told = [x for x in said if any(word in x for word in TOLD)] or said[-3:]
        print("   ", "\n    ".join(told))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
