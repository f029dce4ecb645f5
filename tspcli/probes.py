"""Torch, decoders and drivers, each tried in a process of its own: its death is only a finding."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

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
    "pyav": """
import json, av
libavcodec = ".".join(map(str, av.library_versions["libavcodec"]))
found = {"version": av.__version__, "libavcodec": libavcodec}
found["codecs"] = [c for c in ("h264", "hevc", "vp9", "av1", "mpeg4") if c in av.codecs_available]
print(json.dumps(found))
""",
    "decord": "import json, decord; print(json.dumps({'version': decord.__version__}))",
    "torchcodec": """
import json, torchcodec
from torchcodec.decoders import VideoDecoder
print(json.dumps({"version": torchcodec.__version__}))
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
    # -c puts the current folder on the path, where a stray torch.py would be taken for torch.
    code = f"import sys; sys.path = [p for p in sys.path if p]\n{code}"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Probe(None, f"no answer within {timeout_s:g} s", timed_out=True)
    except OSError as error:
        return Probe(None, f"no process could be started: {error}")
    if done.returncode < 0:
        return Probe(None, f"the process died of signal {-done.returncode} while loading it")
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    if done.returncode:
        problem = lines[-1] if lines else f"exit status {done.returncode}"
        return Probe(None, problem[:300], installed="ModuleNotFoundError" not in problem)
    try:
        facts = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return Probe(None, "its answer was not understood")
    return Probe(facts)
