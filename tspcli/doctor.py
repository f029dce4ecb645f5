"""What this installation has, what it lacks, and what to do about each lack.

A table of checks. Whatever could take the process down with it (torch, a decoder, the CUDA driver)
is probed in a process of its own, whose death is only a finding.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tspcli.core.child_process import available_cores, cgroup_cores, memory_bytes, run_isolated
from tspcli.core.files import cache_location
from tspcli.core.version import __version__
from tspcli.errors import TspError
from tspcli.video.decoders import DECODERS, DecoderEntry

Status = Literal["ok", "note", "lack"]
"""Fine; something that not everyone needs is missing; extraction cannot work."""

SHARED_MEMORY_FLOOR_BYTES = 512 << 20
"""Frames travel through shared memory; containers often start with 64 MB of it."""
MEMORY_FLOOR_BYTES = 4 << 30
DISK_FLOOR_BYTES = 1 << 30
PROBE_TIMEOUT_S = 120.0
_SLOW = (
    "Run `tsp doctor` again when the machine is less busy. If it stays so, import it in Python "
    "alone: a driver or a file system may hang."
)


# --- results --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        group: Under which heading it belongs.
        name: What was checked.
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
    """All findings and the plain facts behind them."""

    findings: tuple[Finding, ...]
    facts: dict[str, Any]

    @property
    def lacks(self) -> list[str]:
        """Names of what extraction needs and does not have."""
        return [finding.name for finding in self.findings if finding.status == "lack"]

    @property
    def can_extract(self) -> bool:
        """Whether extraction has everything that it needs."""
        return not self.lacks

    def to_dict(self) -> dict[str, Any]:
        """The diagnosis as plain values for JSON."""
        checks = [asdict(finding) for finding in self.findings]
        return {"can_extract": self.can_extract, "checks": checks, "facts": self.facts}


class Result(NamedTuple):
    """What a check's ``run`` returns; ``remedy`` stands in for the check's own."""

    status: Status
    found: str
    remedy: str | None = None


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Attributes:
        group, name: See :class:`Finding`.
        run: Judges what the probes found.
        remedy: What to do unless the result is fine.
    """

    group: str
    name: str
    run: Callable[[Facts], Result]
    remedy: str | None = None

    def finding(self, facts: Facts) -> Finding:
        """Run it."""
        status, found, remedy = self.run(facts)
        return Finding(
            self.group,
            self.name,
            status,
            found,
            remedy or (None if status == "ok" else self.remedy),
        )


# --- probes ---------------------------------------------------------------------------------------

# Each prints one JSON object; what goes wrong is in the exit status and the last line of stderr.
PROBES: dict[str, str] = {
    "torch": """
import json, torch
from tspcli.core.devices import unsupported_gpu
found = {"version": torch.__version__, "cuda_build": torch.version.cuda, "threads":
         torch.get_num_threads(), "devices": [], "cuda": torch.cuda.is_available()}
for i in range(torch.cuda.device_count() if found["cuda"] else 0):
    p = torch.cuda.get_device_properties(i)
    problem = unsupported_gpu(i)
    try:
        free = torch.cuda.mem_get_info(i)[0]
    except RuntimeError as error:  # full, or reserved by another process
        free, problem = None, problem or str(error).splitlines()[0]
    found["devices"].append({"name": p.name, "capability": f"{p.major}.{p.minor}",
                             "memory_bytes": p.total_memory, "free_bytes": free,
                             "problem": problem})
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


class Facts(NamedTuple):
    """What the checks judge.

    Attributes:
        probes: What came of each probe, by name.
        machine: See :func:`machine_facts`.
    """

    probes: Mapping[str, Probe]
    machine: Mapping[str, Any]


def all_probes() -> dict[str, str]:
    """The code of every probe: :data:`PROBES` and one for each decoder of the table."""
    return PROBES | {
        entry.name: _DECODER_PROBE.format(module=entry.module, source=entry.source)
        for entry in _decoders()
    }


def run_probe(code: str, *, timeout_s: float = PROBE_TIMEOUT_S) -> Probe:
    """Run one probe in a process of its own."""
    result = run_isolated(code, timeout_s=timeout_s)
    installed = "ModuleNotFoundError" not in (result.problem or "")
    return Probe(result.answer, result.problem, installed, result.timed_out)


def machine_facts() -> dict[str, Any]:
    """Cores and memory that this process may use.

    Returns:
        ``cores`` (the smaller of the scheduler's mask and the cgroup's quota), ``cores_installed``,
        ``memory_bytes`` (installed, or the cgroup's limit) and ``shared_memory_bytes`` free in
        /dev/shm; None where the system does not say.
    """
    return {
        "cores": min(float(available_cores()), cgroup_cores() or float("inf")),
        "cores_installed": os.cpu_count() or 1,
        "memory_bytes": memory_bytes(),
        "shared_memory_bytes": _free_bytes(Path("/dev/shm")),
    }


def _decoders() -> list[DecoderEntry]:
    """Those that need no GPU; NVDEC is looked for with the driver."""
    return [entry for entry in DECODERS.values() if not entry.on_gpu]


def _free_bytes(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


# --- the table ------------------------------------------------------------------------------------


def diagnose(
    probe: Callable[[str], Probe] = run_probe, machine: Mapping[str, Any] | None = None
) -> Diagnosis:
    """Run every check.

    Args:
        probe: Runs the code of a probe.
        machine: As from :func:`machine_facts`, which is asked by default.
    """
    codes = all_probes()
    # Two at a time: torch alone needs a second and some hundred MB to load.
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(codes, pool.map(probe, codes.values()), strict=True))
    facts = Facts(found, machine_facts() if machine is None else machine)
    findings = tuple(check.finding(facts) for check in checks(facts))
    plain = {
        "tspcli": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": dict(facts.machine),
        "probes": {name: p.facts or {"problem": p.problem} for name, p in found.items()},
    }
    return Diagnosis(findings, plain)


def checks(facts: Facts) -> Iterator[Check]:
    """The table, in the order in which it is shown; ``facts`` say how many GPUs there are."""
    yield Check("installation", "Python", _python, "Versions 3.10 to 3.13 are the ones tested.")
    for name, package in {
        "torch": "torch",
        "torchvision": "torchvision",
        "numpy": "numpy",
        "h5py": "h5py",
        "opencv": "opencv-python-headless",
    }.items():
        run = partial(_loads, name, needed=True, if_installed=_IF_INSTALLED.get(name))
        yield Check("installation", name, run, f"pip install --upgrade {package}")
    for entry in _decoders():
        # PyAV also reads durations and the times of packets, so nothing works without it.
        needs = f"It needs {entry.needs}" if entry.needs else None
        run = partial(_loads, entry.name, needed=entry.name == "pyav", if_installed=needs)
        yield Check("decoders", entry.name, run, entry.remedy)
    for name, extra in {
        "matplotlib": "plots",
        "tensorboard": "train",
        "ray": "ray",
        "openvino": "openvino",
    }.items():
        remedy = f"pip install 'tspcli[{extra}]', if it is wanted"
        yield Check("extras", name, partial(_is_installed, name), remedy)
    yield Check("machine", "cores", _cores)
    yield Check("machine", "memory", _memory, "Expect to need --batch-size 1 and --workers 1.")
    remedy = "Give the container more (docker run --shm-size=2g), or use --workers 1."
    yield Check("machine", "/dev/shm", _shared_memory, remedy)
    for number, device in enumerate(devices := _devices(facts)):
        yield Check("devices", f"cuda:{number}", partial(_device, device))
    if devices:
        remedy = "Only --decoder torchcodec-cuda would use it."
        yield Check("devices", "NVDEC", _nvdec, remedy)
    else:
        yield Check("devices", "GPU", _no_device)
    yield Check("files", "cache", _cache, "Set TSPCLI_HOME to a folder that you may write to.")
    yield Check("files", "disk", _disk, "Make room, or set TSPCLI_HOME to another disk.")
    yield Check("files", "weights", _weights)


_IF_INSTALLED = {
    "torchvision": "Install torch and torchvision together, from one index: pip install --upgrade "
    "--force-reinstall torch torchvision"
}


def _python(facts: Facts) -> Result:
    version = f"{platform.python_version()} ({platform.system()} {platform.machine()})"
    return Result("ok" if (3, 10) <= sys.version_info[:2] <= (3, 13) else "note", version)


def _loads(name: str, facts: Facts, *, needed: bool, if_installed: str | None) -> Result:
    """Whether a package can be loaded; ``if_installed`` is the remedy if it is there and cannot."""
    probe = facts.probes[name]
    if probe.facts is not None:
        codecs = probe.facts.get("codecs")
        return Result("ok", probe.version + (f", reads {', '.join(codecs)}" if codecs else ""))
    if probe.timed_out:
        return Result("note", probe.problem or "", _SLOW)
    remedy = if_installed if probe.installed else None
    return Result("lack" if needed else "note", probe.problem or "missing", remedy)


def _is_installed(name: str, facts: Facts) -> Result:
    try:
        return Result("ok", metadata.version(name))
    except metadata.PackageNotFoundError:
        return Result("note", "not installed")


def _cores(facts: Facts) -> Result:
    return Result("ok", f"{facts.machine['cores']:g} of {facts.machine['cores_installed']}")


def _memory(facts: Facts) -> Result:
    return _enough(facts.machine["memory_bytes"], MEMORY_FLOOR_BYTES, "")


def _shared_memory(facts: Facts) -> Result:
    return _enough(facts.machine["shared_memory_bytes"], SHARED_MEMORY_FLOOR_BYTES, " free")


def _enough(n_bytes: int | None, floor_bytes: int, what: str) -> Result:
    if n_bytes is None:
        return Result("ok", "unknown")
    return Result("note" if n_bytes < floor_bytes else "ok", gigabytes(n_bytes) + what)


def _devices(facts: Facts) -> list[dict[str, Any]]:
    return list((facts.probes["torch"].facts or {}).get("devices", []))


def _driver(facts: Facts) -> dict[str, Any]:
    return facts.probes["driver"].facts or {}


def _device(device: Mapping[str, Any], facts: Facts) -> Result:
    if device.get("problem"):
        return Result("note", device["problem"], "Use --device cpu, or another GPU.")
    return Result(
        "ok",
        f"{device['name']}, capability {device['capability']}, "
        f"{gigabytes(device['memory_bytes'])}, driver {_driver(facts).get('driver') or 'unknown'}",
    )


def _nvdec(facts: Facts) -> Result:
    if _driver(facts).get("nvdec"):
        return Result("ok", "library found")
    return Result("note", "library libnvcuvid not found")


def _no_device(facts: Facts) -> Result:
    driver, torch = _driver(facts).get("driver"), facts.probes["torch"].facts
    if not driver or not torch:
        return Result("ok", "none; the encoder runs on the CPU")
    return Result(
        "note",
        f"driver {driver} is there, but torch {torch['version']} cannot use it",
        f"Install a torch built for this driver (this one: CUDA {torch['cuda_build']}).",
    )


def _cache(facts: Facts) -> Result:
    folder = cache_location()
    try:
        # Trying is the only test that detects read-only mounts and quotas.
        with tempfile.TemporaryFile(dir=_nearest(folder)) as file:
            file.write(b"0")
    except OSError as error:
        return Result("note", f"{folder} cannot be written: {error.strerror or error}")
    return Result("ok", str(folder))


def _disk(facts: Facts) -> Result:
    return _enough(_free_bytes(_nearest(cache_location())), DISK_FLOOR_BYTES, " free")


def _nearest(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _weights(facts: Facts) -> Result:
    from tspcli.encoders.weights import list_weights

    try:
        entries = list_weights()
    except TspError as error:
        return Result("lack", error.message, error.remedy)
    local = [entry.name for entry in entries if entry.is_local]
    return Result(
        "ok",
        f"{len(local)} of {len(entries)} on this machine"
        + (f": {', '.join(local)}" if local else ""),
        None if local else "tsp weights fetch NAME",
    )


def gigabytes(n_bytes: float) -> str:
    """Bytes as GB (10^9) with one decimal."""
    return f"{n_bytes / 1e9:.1f} GB"
