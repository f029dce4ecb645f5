"""The original extraction script, run unmodified from the user's own checkout.

    python -m benchmarks.official CHECKOUT ARGUMENTS ...

``CHECKOUT`` is a clone of the repository of the TSP paper; the arguments are those of its
``extract_features.py``. Only what its surroundings have lost since is put back: torchvision's
``read_video`` (removed from torchvision), as a function with the same work. It needs pandas.
"""

from __future__ import annotations

import math
import os
import pickle
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

_LATE_FRAMES = 5
"""So many frames after the wanted ones the old function went on, in case some came out of order."""
_WEIGHTS, _TABLE, _HOME = "weights.pth", "videos.csv", "home"


def read_video(
    filename: str, start_pts: float = 0, end_pts: float = math.inf, pts_unit: str = "sec", **_: Any
) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """Frames (T, H, W, 3) between two times in seconds, and the sound, both decoded."""
    assert pts_unit == "sec"
    with av.open(filename, metadata_errors="ignore") as container:
        frames = _between(container, container.streams.video[0], start_pts, end_pts)
        pictures = [frame.to_rgb().to_ndarray() for frame in frames]
        sounds = []
        if container.streams.audio:
            heard = _between(container, container.streams.audio[0], start_pts, end_pts)
            sounds = [frame.to_ndarray() for frame in heard]
    sound = np.concatenate(sounds, axis=1) if sounds else np.zeros((1, 0), np.float32)
    return torch.from_numpy(np.stack(pictures)), torch.from_numpy(sound), {}


def _between(container: Any, stream: Any, start_s: float, end_s: float) -> list[Any]:
    first = math.floor(start_s / stream.time_base)
    last = math.inf if end_s == math.inf else math.ceil(end_s / stream.time_base)
    container.seek(first, any_frame=False, backward=True, stream=stream)
    found: dict[int, Any] = {}
    n_late = 0
    for frame in container.decode(stream):
        found[frame.pts] = frame
        if frame.pts >= last:
            n_late += 1
            if n_late > _LATE_FRAMES:
                break
    return [found[pts] for pts in sorted(found) if first <= pts <= last]


def save_weights(folder: Path, module: torch.nn.Module) -> Path:
    """Write a backbone's weights as a checkpoint that both programs read."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / _WEIGHTS
    state = {f"features.{name}": value for name, value in module.state_dict().items()}
    torch.save({"model": state}, place)
    return place


def prepare(folder: Path, videos: Sequence[Path], module: torch.nn.Module, backbone: str) -> None:
    """Write what else the script is given; that is not its work and not counted as its time.

    Args:
        folder: Where :func:`save_weights` has written the weights.
        videos: What is to be read.
        module: The backbone.
        backbone: Its name.
    """
    _prepare_home(folder / _HOME, module, backbone)
    lines = ["filename,fps,video-frames"]
    for video in videos:
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            n_frames = sum(packet.size > 0 for packet in container.demux(stream))
            lines.append(f"{video},{float(stream.average_rate or 30)},{n_frames}")
    (folder / _TABLE).write_text("\n".join(lines) + "\n")


def _prepare_home(folder: Path, module: torch.nn.Module, backbone: str) -> None:
    """Weights where the script looks for downloaded ones; it replaces them right after."""
    state = dict(module.state_dict())
    state["fc.weight"], state["fc.bias"] = torch.zeros(400, 512), torch.zeros(400)
    if backbone == "r2plus1d_34":
        name = "r2plus1d_34_clip8_ft_kinetics_from_ig65m-0aa0550b.pth"
    else:
        from torchvision.models import get_model_weights

        name = get_model_weights(backbone).DEFAULT.url.rpartition("/")[2]
    place = folder / "hub" / "checkpoints"
    place.mkdir(parents=True, exist_ok=True)
    torch.save(state, place / name)


def extract(
    checkout: Path,
    prepared: Path,
    backbone: str,
    out: Path,
    *,
    stride: int = 16,
    device: str = "cpu",
    workers: int = 6,
    batch_size: int = 32,
) -> None:
    """Run the script.

    Args:
        checkout: A clone of its repository.
        prepared: The folder of :func:`prepare`.
        backbone: As given there.
        out: The folder of its results, which :func:`rows` reads.
        stride, device, workers, batch_size: The script's own options.
    """
    run_python(
        "-m", "benchmarks.official", str(checkout.resolve()),
        "--data-path", "/", "--metadata-csv-filename", str(prepared / _TABLE),
        "--local-checkpoint", str(prepared / _WEIGHTS), "--backbone", backbone,
        "--stride", str(stride), "--device", device, "--output-dir", str(out),
        "--workers", str(workers), "--batch-size", str(batch_size),
        TORCH_HOME=str(prepared / _HOME),
    )  # fmt: skip


def rows(out: Path) -> dict[str, np.ndarray]:
    """The rows of each video that the script wrote, by its name without the ending."""
    return {path.stem: pickle.loads(path.read_bytes()) for path in out.glob("*.pkl")}


def run_python(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a module of this repository in a process of its own."""
    here = str(Path(__file__).resolve().parent.parent)
    places = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, *words],
        env=os.environ | {"PYTHONPATH": places} | environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words[:4])} failed:\n{done.stderr[-2000:]}")
    return done


def main() -> None:
    folder = Path(sys.argv[1]) / "extract_features"
    import torchvision.io

    torchvision.io.read_video = read_video
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.argv = [str(folder / "extract_features.py"), *sys.argv[2:]]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
