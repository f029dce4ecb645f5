"""The wheel works elsewhere: built from the source archive, installed outside of the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = ("tspcli", "weights", "pyproject.toml", "setup.py", "README.md", "LICENSE")


def run(command: list[str], cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    known = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "TSPCLI_HOME")}
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**known, "PIP_NO_INDEX": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by way of the source archive in a copy of the checkout."""
    try:
        # Not by import: setuptools puts itself in the place of distutils.
        old = int(metadata.version("setuptools").partition(".")[0]) < 77
        metadata.version("build")
    except metadata.PackageNotFoundError as error:
        pytest.skip(f"not installed: {error.name}")
    if old:
        pytest.skip("setuptools is older than the project asks for")
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source / name)
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", "out", "."], source)
    (found,) = (source / "out").glob("*.whl")
    assert len(list((source / "out").glob("*.tar.gz"))) == 1
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the installed wheel."""
    target = tmp_path_factory.mktemp("installed") / "site"
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet"]
    run([*pip, "--target", str(target), str(wheel)], target.parent)
    return target


def tsp(installed: Path, *arguments: str) -> str:
    """Run the installed command in an empty folder and return what it prints."""
    folder = installed.parent / "elsewhere"
    folder.mkdir(exist_ok=True)
    script = [sys.executable, str(installed / "bin" / "tsp"), *arguments]
    home = str(installed.parent / "cache")
    return run(script, folder, PYTHONPATH=str(installed), TSPCLI_HOME=home).stdout


def test_it_holds_every_package_and_data_file_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tspcli").rglob("*.py")
        if "__pycache__" not in path.parts
    }
    data = {
        f"tspcli/_weights/{path.relative_to(ROOT / 'weights')}"
        for ending in ("json", "pth")
        for path in (ROOT / "weights").rglob(f"*.{ending}")
    }
    assert "tspcli/_weights/registry.json" in data
    data |= {str(path.relative_to(ROOT)) for path in (ROOT / "tspcli/viewer/static").iterdir()} | {
        "tspcli/py.typed",
        "tspcli/analysis/page.html",
    }
    missing = (modules | data) - names
    assert missing == set(), "a folder without __init__.py, or an ending that setup.py leaves out"
    foreign = {name for name in names if not name.startswith(("tspcli/", "tspcli-"))}
    assert foreign == set()
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_command_answers_elsewhere(installed: Path) -> None:
    assert "extract" in tsp(installed, "--help")
    code = "import tspcli, sys; print(tspcli.__file__)"
    done = run([sys.executable, "-c", code], installed.parent, PYTHONPATH=str(installed))
    assert Path(done.stdout.strip()).is_relative_to(installed)


def test_the_registry_and_the_embedded_weights_come_along(installed: Path) -> None:
    code = (
        "import json, sys\n"
        "import numpy, torch, tspcli\n"
        "from tspcli.encoders import list_weights, load_encoder\n"
        "found = {'home': tspcli.__file__, 'names': [e.name for e in list_weights()], 'run': {}}\n"
        "for entry in list_weights():\n"
        "    if entry.embedded is None:\n"
        "        continue\n"
        "    encoder = load_encoder(entry.name, device='cpu')\n"
        "    spec, length = encoder.frame_spec, encoder.sampling.clip_length\n"
        "    height, width = spec.output_shape(240, 320)\n"
        "    frames = torch.zeros((1, length, height, width, 3), dtype=torch.uint8)\n"
        "    features = encoder.encode_frames(frames)\n"
        "    assert torch.isfinite(features).all()\n"
        "    found['run'][entry.name] = list(features.shape)\n"
        "print(json.dumps(found))\n"
    )
    done = run([sys.executable, "-c", code], installed.parent, PYTHONPATH=str(installed))
    found = json.loads(done.stdout)
    assert Path(found["home"]).is_relative_to(installed)
    registry = json.loads((ROOT / "weights" / "registry.json").read_text())["weights"]
    assert found["names"] == list(registry)
    assert found["run"] == {
        name: [1, entry["feature_dim"]] for name, entry in registry.items() if "embedded" in entry
    }
    assert "tiny" in found["run"]


def test_the_weights_are_listed_elsewhere(installed: Path) -> None:
    listed = tsp(installed, "weights", "list", "--json")
    names = [entry["name"] for entry in json.loads(listed)]
    assert "r2plus1d_34-tsp_on_activitynet" in names
