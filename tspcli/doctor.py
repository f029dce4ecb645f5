"""What this installation has, what it lacks, and what to do about each lack.

Everything that could take the process down with it (a decoder, torch, the CUDA driver) is tried in
a process of its own (:mod:`tspcli.doctor`).

Torch, decoders and drivers, each tried in a process of its own: its death is only a finding.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from tspcli.core.child_process import available_cores, cgroup_cores, memory_bytes, run_isolated
from tspcli.core.files import cache_location
from tspcli.core.version import __version__
from tspcli.errors import TspError
from tspcli.video.decoders import DECODERS, DecoderEntry

Status = Literal["ok", "note", "lack"]
"""Fine; something that not everyone needs is missing; extraction cannot work."""

SHARED_MEMORY_FLOOR_BYTES = 512 << 20
"""Frames travel through shared memory; containers often start with 64 MB of it."""
DISK_FLOOR_BYTES = 1 << 30

_NEEDED = {
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "h5py": "h5py",
    "opencv": "opencv-python-headless",
}
_SLOW = (
    "Run `tsp doctor` again when the machine does less. If it stays so, import it in Python alone: "
    "a driver or a file system may hang."
)
_EXTRAS = {
    "matplotlib": "plots",
    "tensorboard": "train",
    "ray": "ray",
    "openvino": "openvino",
}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        group: Under which heading it belongs.
        name: What was looked at.
        status: See :data:`Status`.
        found: What was found, in words.
        remedy: What to do, where something is missing.
    """

    group: str
    name: str
    status: Status
    found: str
    remedy: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """All checks and the plain facts behind them."""

    checks: tuple[Check, ...]
    facts: dict[str, Any]

    @property
    def can_extract(self) -> bool:
        """Whether nothing that extraction needs is missing."""
        return all(check.status != "lack" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """The diagnosis as plain values for JSON."""
        checks = [asdict(check) for check in self.checks]
        return {"can_extract": self.can_extract, "checks": checks, "facts": self.facts}


def diagnose(
    probe: Callable[[str], Probe] | None = None,
) -> Diagnosis:
    """Look at everything.

    Args:
        probe: Runs the code of a probe; :func:`run_probe` by default.
    """
    run = probe or run_probe
    # Two at a time: torch alone needs a second and some hundred MB to load.
    with ThreadPoolExecutor(2) as pool:
        probes = all_probes()
        found = dict(zip(probes, pool.map(run, probes.values()), strict=True))
    machine = machine_facts()
    checks = [
        _check_python(),
        *(_check_needed(name, found[name]) for name in _NEEDED),
        *_check_decoders(found),
        *(_check_extra(name, extra) for name, extra in _EXTRAS.items()),
        *_check_machine(machine),
        *_check_devices(found),
        *_check_cache(cache_location()),
        _check_weights(),
    ]
    facts = {
        "tspcli": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": machine,
        "probes": {name: p.facts or {"problem": p.problem} for name, p in found.items()},
    }
    return Diagnosis(tuple(checks), facts)


def _check_python() -> Check:
    version = f"{platform.python_version()} ({platform.system()} {platform.machine()})"
    if (3, 10) <= sys.version_info[:2] <= (3, 13):
        return Check("installation", "Python", "ok", version)
    remedy = "Versions 3.10 to 3.13 are the ones tested."
    return Check("installation", "Python", "note", version, remedy)


def _check_needed(name: str, probe: Probe) -> Check:
    if probe.facts is not None:
        return Check("installation", name, "ok", probe.version)
    if probe.timed_out:
        return Check("installation", name, "note", probe.problem or "", _SLOW)
    package = _NEEDED[name]
    remedy = f"pip install --upgrade {package}"
    if name == "torchvision" and probe.installed:
        remedy = (
            "Install torch and torchvision together, from one index: pip install --upgrade "
            "--force-reinstall torch torchvision"
        )
    return Check("installation", name, "lack", probe.problem or "missing", remedy)


def _check_decoders(found: dict[str, Probe]) -> list[Check]:
    return [_check_decoder(entry, found[entry.name]) for entry in _decoders()]


def _check_decoder(entry: DecoderEntry, probe: Probe) -> Check:
    if probe.facts is not None:
        codecs = probe.facts.get("codecs")
        text = probe.version + (f", reads {', '.join(codecs)}" if codecs else "")
        return Check("decoders", entry.name, "ok", text)
    if probe.timed_out:
        return Check("decoders", entry.name, "note", probe.problem or "", _SLOW)
    remedy = f"It needs {entry.needs}" if probe.installed and entry.needs else entry.remedy
    # PyAV also reads durations and the times of packets, so nothing works without it.
    status: Status = "lack" if entry.name == "pyav" else "note"
    return Check("decoders", entry.name, status, probe.problem or "missing", remedy)


def _check_extra(name: str, extra: str) -> Check:
    try:
        return Check("extras", name, "ok", metadata.version(name))
    except metadata.PackageNotFoundError:
        remedy = f"pip install 'tspcli[{extra}]', if it is wanted"
        return Check("extras", name, "note", "not installed", remedy)


def machine_facts() -> dict[str, Any]:
    """Cores and memory that this process may use.

    Returns:
        ``cores`` (the smaller of the scheduler's mask and the cgroup's quota), ``cores_installed``,
        ``memory_bytes`` (installed, or the cgroup's limit) and ``shared_memory_bytes`` free in
        /dev/shm; None where the system does not tell.
    """
    cores = min(float(available_cores()), cgroup_cores() or float("inf"))
    return {
        "cores": cores,
        "cores_installed": os.cpu_count() or 1,
        "memory_bytes": memory_bytes(),
        "shared_memory_bytes": _free_bytes(Path("/dev/shm")),
    }


def _free_bytes(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def _check_machine(machine: dict[str, Any]) -> list[Check]:
    cores = f"{machine['cores']:g} of {machine['cores_installed']}"
    checks = [Check("machine", "cores", "ok", cores)]
    memory = machine["memory_bytes"]
    if memory is not None:
        little = memory < 4 << 30
        remedy = "Expect to need --batch-size 1 and --workers 1." if little else None
        checks.append(
            Check("machine", "memory", "note" if little else "ok", gigabytes(memory), remedy)
        )
    shared = machine["shared_memory_bytes"]
    if shared is not None:
        little = shared < SHARED_MEMORY_FLOOR_BYTES
        remedy = (
            "Give the container more (docker run --shm-size=2g), or use --workers 1."
            if little
            else None
        )
        status: Status = "note" if little else "ok"
        checks.append(Check("machine", "/dev/shm", status, f"{gigabytes(shared)} free", remedy))
    return checks


def _check_devices(found: dict[str, Probe]) -> list[Check]:
    facts = found["torch"].facts or {}
    driver = found["driver"].facts or {}
    devices = [
        Check(
            "devices",
            f"cuda:{number}",
            "ok",
            f"{device['name']}, capability {device['capability']}, "
            f"{gigabytes(device['memory_bytes'])}, driver {driver.get('driver') or 'unknown'}",
        )
        for number, device in enumerate(facts.get("devices", []))
    ]
    if devices:
        has = bool(driver.get("nvdec"))
        remedy = None if has else "Only --decoder torchcodec-cuda would use it."
        text = "library found" if has else "library libnvcuvid not found"
        return [*devices, Check("devices", "NVDEC", "ok" if has else "note", text, remedy)]
    if driver.get("driver") and facts:
        text = f"driver {driver['driver']} is there, but torch {facts['version']} cannot use it"
        remedy = f"Install a torch built for this driver (this one: CUDA {facts['cuda_build']})."
        return [Check("devices", "GPU", "note", text, remedy)]
    text = "none; the encoder runs on the CPU"
    return [Check("devices", "GPU", "ok", text)]


def _check_cache(folder: Path) -> list[Check]:
    nearest = next(p for p in (folder, *folder.parents) if p.exists())
    try:
        # Trying is the only test that knows of read-only mounts and quotas.
        with tempfile.TemporaryFile(dir=nearest) as file:
            file.write(b"0")
    except OSError as error:
        text = f"{folder} cannot be written: {error.strerror or error}"
        remedy = "Set TSPCLI_HOME to a folder that you may write to; weights are kept there."
        return [Check("files", "cache", "note", text, remedy)]
    checks = [Check("files", "cache", "ok", str(folder))]
    free = _free_bytes(nearest)
    if free is not None and free < DISK_FLOOR_BYTES:
        remedy = "Make room, or set TSPCLI_HOME to another disk."
        checks.append(Check("files", "disk", "note", f"{gigabytes(free)} free", remedy))
    return checks


def _check_weights() -> Check:
    from tspcli.encoders.weights import list_weights

    try:
        entries = list_weights()
    except TspError as error:
        return Check("files", "weights", "lack", error.message, error.remedy)
    local = [entry.name for entry in entries if entry.is_local]
    text = f"{len(local)} of {len(entries)} at hand" + (f": {', '.join(local)}" if local else "")
    return Check("files", "weights", "ok", text, None if local else "tsp weights fetch NAME")


def gigabytes(n_bytes: float) -> str:
    """Bytes as GB (10^9) with one decimal."""
    return f"{n_bytes / 1e9:.1f} GB"


PROBE_TIMEOUT_S = 120.0

# Each prints one JSON object; what goes wrong is in the exit status and the last line of stderr.
PROBES = {
    "torch": """
import json, torch
found = {"version": torch.__version__, "cuda_build": torch.version.cuda, "threads":
         torch.get_num_threads(), "devices": [], "cuda": torch.cuda.is_available()}
for i in range(torch.cuda.device_count() if found["cuda"] else 0):
    p = torch.cuda.get_device_properties(i)
    free, total = torch.cuda.mem_get_info(i)
    found["devices"].append({"name": p.name, "capability": f"{p.major}.{p.minor}",
                             "memory_bytes": total, "free_bytes": free})
found["mps"] = torch.backends.mps.is_available()
print(json.dumps(found))
""",
    "torchvision": """
import json, torchvision, torchvision.ops
print(json.dumps({"version": torchvision.__version__}))
""",
    "numpy": "import json, numpy; print(json.dumps({'version': numpy.__version__}))",
    "h5py": """
import json, h5py
print(json.dumps({"version": h5py.__version__, "hdf5": h5py.version.hdf5_version}))
""",
    "opencv": """
import json, cv2, numpy
assert cv2.resize(numpy.zeros((4, 4, 3), "uint8"), (2, 2)).shape == (2, 2, 3)
print(json.dumps({"version": cv2.__version__}))
""",
    "driver": """
import ctypes, json, subprocess
found = {"driver": None, "nvdec": False}
try:
    ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(ask, capture_output=True, text=True, timeout=30)
    found["driver"] = done.stdout.split("\\n")[0].strip() or None if done.returncode == 0 else None
except (OSError, subprocess.TimeoutExpired):
    pass
try:
    found["nvdec"] = ctypes.CDLL("libnvcuvid.so.1") is not None
except OSError:
    pass
print(json.dumps(found))
""",
}


_DECODER_PROBE = """
import importlib, json
source = getattr(importlib.import_module({module!r}), {source!r})
print(json.dumps(source.facts()))
"""


def _decoders() -> list[DecoderEntry]:
    """Those that need no GPU; NVDEC is looked for with the driver."""
    return [entry for entry in DECODERS.values() if not entry.on_gpu]


def all_probes() -> dict[str, str]:
    """The code of every probe: :data:`PROBES` and one for each decoder of the table."""
    return PROBES | {
        entry.name: _DECODER_PROBE.format(module=entry.module, source=entry.source)
        for entry in _decoders()
    }


@dataclass(frozen=True)
class Probe:
    """What came of a probe: its facts, or why there are none.

    Attributes:
        facts: What it found.
        problem: Why it found nothing.
        installed: Whether the package is there at all.
        timed_out: Whether it was only too slow, which says nothing about what it looked for.
    """

    facts: dict[str, Any] | None
    problem: str | None = None
    installed: bool = True
    timed_out: bool = False

    @property
    def version(self) -> str:
        """The version it reported, empty if it reported none."""
        return str((self.facts or {}).get("version", ""))


def run_probe(code: str, *, timeout_s: float = PROBE_TIMEOUT_S) -> Probe:
    """Run one probe in a process of its own, so that its death is only a finding."""
    result = run_isolated(code, timeout_s=timeout_s)
    installed = "ModuleNotFoundError" not in (result.problem or "")
    return Probe(result.answer, result.problem, installed, result.timed_out)
