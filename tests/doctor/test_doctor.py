"""The doctor finds what is there, survives what crashes, and has a remedy for each lack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner

from tspcli import doctor
from tspcli.cli.doctor import command
from tspcli.doctor import Diagnosis, Finding, Probe, all_probes, diagnose, run_probe

HEALTHY = {
    "torch": {"version": "2.15.0", "cuda_build": "13.2", "devices": []},
    "pyav": {"version": "18.1.0", "codecs": ["h264"]},
    "driver": {"driver": None, "nvdec": False},
}


def diagnose_with(machine: dict[str, float] | None = None, **changes: Probe) -> dict[str, Finding]:
    """The findings by name when every probe succeeds but those given."""
    by_code = {code: name for name, code in all_probes().items()}

    def answer(code: str) -> Probe:
        name = by_code[code]
        return changes.get(name) or Probe(HEALTHY.get(name, {"version": "1.0"}))

    return {found.name: found for found in diagnose(answer, machine).findings}


@pytest.mark.parametrize("name", ["torch", "torchvision", "numpy", "h5py", "opencv", "pyav"])
def test_what_extraction_needs_is_a_lack_with_a_remedy(name: str) -> None:
    checks = diagnose_with(**{name: Probe(None, "No module named 'it'", installed=False)})
    assert checks[name].status == "lack"
    assert "pip install" in str(checks[name].remedy)
    assert not Diagnosis(tuple(checks.values()), {}).can_extract


@pytest.mark.parametrize("name", ["decord", "torchcodec"])
def test_what_extraction_can_do_without_is_a_note_with_a_remedy(name: str) -> None:
    checks = diagnose_with(**{name: Probe(None, "the process died of signal 11")})
    assert checks[name].status == "note"
    assert "signal 11" in checks[name].found
    assert checks[name].remedy
    assert Diagnosis(tuple(checks.values()), {}).can_extract


def test_torchvision_for_another_torch_is_told_from_a_missing_one() -> None:
    problem = "RuntimeError: operator torchvision::nms does not exist"
    check = diagnose_with(torchvision=Probe(None, problem))["torchvision"]
    assert problem in check.found
    assert "together" in str(check.remedy)


def test_devices_are_shown_with_capability_and_driver() -> None:
    device = {"name": "H200", "capability": "9.0", "memory_bytes": 150e9, "free_bytes": 1}
    torch = Probe({"version": "2.15.0", "cuda_build": "13.2", "devices": [device]})
    driver = Probe({"driver": "590.1", "nvdec": False})
    checks = diagnose_with(torch=torch, driver=driver)
    assert checks["cuda:0"].found == "H200, capability 9.0, 150.0 GB, driver 590.1"
    assert checks["NVDEC"].status == "note"
    old = {**device, "problem": "V100 has compute capability 7.0"}
    torch = Probe({"version": "2.15.0", "cuda_build": "13.2", "devices": [old]})
    assert diagnose_with(torch=torch, driver=driver)["cuda:0"].status == "note"
    checks = diagnose_with(driver=driver)
    assert checks["GPU"].status == "note"
    assert "590.1" in checks["GPU"].found


def test_a_module_that_kills_its_process_is_only_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "decord.py").write_text("import os; os.abort()")
    (tmp_path / "torchcodec.py").write_text("import time; time.sleep(60)")
    monkeypatch.syspath_prepend(tmp_path)
    died = run_probe(all_probes()["decord"])
    assert died.facts is None
    assert "SIGABRT" in str(died.problem)
    hangs = run_probe(all_probes()["torchcodec"], timeout_s=1)
    assert "no answer within 1 s" in str(hangs.problem)
    # Slow is not broken: nothing is to be installed again.
    checks = diagnose_with(torch=hangs, pyav=hangs)
    assert checks["torch"].status == checks["pyav"].status == "note"
    assert "pip" not in str(checks["torch"].remedy) + str(checks["pyav"].remedy)


def test_missing_is_told_from_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text("raise OSError('libavutil.so.59: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    broken = run_probe("import broken")
    assert broken.installed
    assert "libavutil.so.59" in str(broken.problem)
    missing = run_probe("import no_such_module_anywhere")
    assert not missing.installed


def test_a_stray_file_in_the_current_folder_is_not_taken_for_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "h5py.py").write_text("raise SystemExit('the wrong h5py')")
    monkeypatch.chdir(tmp_path)
    assert run_probe(all_probes()["h5py"]).facts


def test_a_cache_that_cannot_be_written_has_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TSPCLI_HOME", str(tmp_path / "file" / "cache"))
    check = diagnose_with()["cache"]
    assert check.status == "note"
    assert "TSPCLI_HOME" in str(check.remedy)


def test_little_shared_memory_has_a_remedy() -> None:
    facts = {"cores": 2.0, "cores_installed": 4, "memory_bytes": 2 << 30}
    checks = diagnose_with({**facts, "shared_memory_bytes": 64 << 20})
    assert checks["cores"].found == "2 of 4"
    assert checks["/dev/shm"].status == checks["memory"].status == "note"
    assert "--shm-size" in str(checks["/dev/shm"].remedy)


def test_the_exit_code_says_whether_extraction_can_work(monkeypatch: pytest.MonkeyPatch) -> None:
    lack = Finding("decoders", "pyav", "lack", "missing [red]", "pip install av")
    for checks, code in (((), 0), ((lack,), 1)):
        monkeypatch.setattr(doctor, "diagnose", lambda checks=checks: Diagnosis(checks, {}))
        result = CliRunner().invoke(command, ["--json"], standalone_mode=False)
        assert result.return_value == code
        assert json.loads(result.stdout)["can_extract"] is (code == 0)
        result = CliRunner().invoke(command, [], standalone_mode=False)
        assert result.return_value == code
        if checks:
            assert "missing [red]" in result.stdout
            assert "pip install av" in result.stdout


def test_this_environment_can_extract(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tspcli", "doctor", "--json"],
        capture_output=True,
        text=True,
        cwd=Path(doctor.__file__).parent.parent,
        env={**os.environ, "TSPCLI_HOME": str(tmp_path / "cache")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    diagnosis = json.loads(done.stdout)
    assert diagnosis["can_extract"]
    found = {check["name"]: check["found"] for check in diagnosis["checks"]}
    assert found["pyav"].startswith(metadata.version("av"))
    assert found["h5py"] == metadata.version("h5py")
    assert diagnosis["facts"]["machine"]["cores"] <= (os.cpu_count() or 1)
    assert not (tmp_path / "cache").exists()


def test_a_full_gpu_is_a_finding_of_its_own() -> None:
    """Asking for its free memory starts CUDA there, which fails; torch itself is well."""
    pretend = """
import torch, types
def full(index):
    raise RuntimeError("CUDA error: out of memory")
properties = types.SimpleNamespace(name="H200", major=9, minor=0, total_memory=150)
torch.cuda.is_available, torch.cuda.device_count = lambda: True, lambda: 1
torch.cuda.get_device_capability = lambda index: (9, 0)
torch.cuda.get_arch_list = lambda: ["sm_90"]
torch.cuda.get_device_properties = lambda index: properties
torch.cuda.mem_get_info = full
"""
    probe = run_probe(pretend + all_probes()["torch"])
    assert probe.facts is not None
    [device] = probe.facts["devices"]
    assert device["free_bytes"] is None and device["problem"] == "CUDA error: out of memory"
    checks = diagnose_with(torch=probe, driver=Probe({"driver": "590.1", "nvdec": False}))
    assert checks["torch"].status == "ok"
    assert checks["cuda:0"].status == "note"
