"""Train the embedded ``tiny`` weights: TSP on clips of moving shapes that this script draws.

A short, honest training on a CPU (a quarter of an hour on one core) so that everything works
without a network. The features tell motions of drawn shapes apart; nothing was learned from real
video, and nothing should be expected of them there.

    python tools/train_tiny.py --out weights/tiny.pth
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from tspcli.encoders.backbones import backbone_spec
from tspcli.encoders.checkpoints import load_checkpoint, save_checkpoint
from tspcli.encoders.model import REGION_CLASSES, Heads, TspModel

Image = npt.NDArray[np.float32]
MOTIONS = ("left", "right", "up", "down", "grow", "shrink", "circle", "shake")
FRAMES = 16


def draw_texture(rng: np.random.Generator, size: int) -> Image:
    """A smooth random picture (size, size, 3) in 0..255."""
    coarse = rng.integers(3, 9)
    grid = rng.uniform(0, 255, (coarse, coarse, 3)).astype(np.float32)
    planes = torch.from_numpy(grid).permute(2, 0, 1)[None]
    smooth = F.interpolate(planes, (size, size), mode="bilinear", align_corners=True)
    return smooth[0].permute(1, 2, 0).numpy()


def draw_mask(kind: int, size: int, center: tuple[float, float], radius: float) -> Image:
    """Coverage (size, size, 1) in 0..1 of a disc, a square, a diamond or a ring."""
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    y, x = np.abs(rows - center[0]), np.abs(columns - center[1])
    disc = np.hypot(y, x)
    distance = (disc, np.maximum(y, x), y + x, np.abs(disc - 0.7 * radius) + 0.6 * radius)[kind]
    return np.clip(radius - distance + 0.5, 0, 1)[..., None].astype(np.float32)


def draw_clip(rng: np.random.Generator, motion: int | None, size: int) -> npt.NDArray[np.uint8]:
    """(16, size, size, 3): a shape that moves as told; for None one that rests or is absent."""
    margin = size // 4
    scene = draw_texture(rng, size + 2 * margin)
    drift = rng.uniform(-0.4, 0.4, 2) * margin * (rng.random() < 0.5)
    kind, color = int(rng.integers(4)), rng.uniform(0, 255, 3).astype(np.float32)
    present = motion is not None or rng.random() < 0.7
    start = rng.uniform(0.3, 0.7, 2) * size
    radius, reach = rng.uniform(0.1, 0.2) * size, rng.uniform(0.25, 0.5) * size
    phase, turns = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.4) * rng.choice([-1, 1])
    noise = rng.uniform(0, 12)
    clip = np.empty((FRAMES, size, size, 3), np.uint8)
    for index, t in enumerate(np.linspace(0, 1, FRAMES)):
        top, left = (margin + drift * t).astype(int)
        frame = scene[top : top + size, left : left + size].copy()
        y, x, r = float(start[0]), float(start[1]), float(radius)
        name = None if motion is None else MOTIONS[motion]
        if name in ("left", "right"):
            x += reach * (t - 0.5) * (1 if name == "right" else -1)
        elif name in ("up", "down"):
            y += reach * (t - 0.5) * (1 if name == "down" else -1)
        elif name in ("grow", "shrink"):
            r *= 0.5 + 1.2 * (t if name == "grow" else 1 - t)
        elif name == "circle":
            angle = phase + 2 * np.pi * turns * t
            y, x = y + reach / 2 * np.sin(angle), x + reach / 2 * np.cos(angle)
        elif name == "shake":
            x += reach / 3 * np.sin(phase + 6 * np.pi * t)
        if present:
            mask = draw_mask(kind, size, (y, x), r)
            frame = frame * (1 - mask) + color * mask
        frame += rng.normal(0, noise, frame.shape).astype(np.float32)
        clip[index] = np.clip(frame, 0, 255)
    return clip


def draw_batch(
    rng: np.random.Generator, count: int, size: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normalised clips (N, 3, 16, size, size), motions (N,) with -1 for none, regions (N,)."""
    look = backbone_spec("tiny").preprocessing
    clips, motions = [], []
    for _ in range(count):
        motion = int(rng.integers(len(MOTIONS))) if rng.random() < 0.7 else -1
        clip = draw_clip(rng, motion if motion >= 0 else None, size)
        clips.append(look.normalize(torch.from_numpy(clip)).transpose(0, 1))
        motions.append(motion)
    labels = torch.tensor(motions)
    action, background = REGION_CLASSES.index("Action"), REGION_CLASSES.index("No action")
    return torch.stack(clips), labels, torch.where(labels >= 0, action, background)


def evaluate(model: TspModel, count: int, size: int, seed: int) -> tuple[float, float]:
    """Accuracy of the action head on foreground clips, and of the region head, on fresh clips."""
    model.eval()
    rng = np.random.default_rng(seed)
    right = np.zeros(2)
    total = np.zeros(2)
    for _ in range(count // 16):
        clips, motions, regions = draw_batch(rng, 16, size)
        with torch.inference_mode():
            action, region = model(clips)
        seen = motions >= 0
        right[0] += int((action.argmax(1) == motions)[seen].sum())
        right[1] += int((region.argmax(1) == regions).sum())
        total += (int(seen.sum()), len(regions))
    return float(right[0] / total[0]), float(right[1] / total[1])


def train(half_size_steps: int, full_size_steps: int, seed: int) -> TspModel:
    """TSP's two losses, first at half size, where a step takes a sixth of the time."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = TspModel("tiny", Heads(len(MOTIONS), region=True))
    model = model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.01)
    steps = half_size_steps + full_size_steps
    start = time.monotonic()
    for step in range(steps):
        rate = min(1.0, (step + 1) / 50) * 0.5 * (1 + np.cos(np.pi * step / steps))
        optimizer.param_groups[0]["lr"] = 2e-3 * rate
        size = 56 if step < half_size_steps else 112
        clips, motions, regions = draw_batch(rng, 16, size)
        model.train()
        action, region = model(clips.to(memory_format=torch.channels_last_3d))
        loss = F.cross_entropy(region, regions)
        if (motions >= 0).any():
            loss = loss + F.cross_entropy(action, motions, ignore_index=-1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if (step + 1) % 50 == 0:
            took = time.monotonic() - start
            print(f"step {step + 1} of {steps}, {took:.0f} s, loss {loss.item():.3f}", flush=True)
    return model


def main() -> None:
    """Train, round to 16 bits, save, and measure what was saved."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--half-size-steps", type=int, default=700)
    parser.add_argument("--full-size-steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = train(options.half_size_steps, options.full_size_steps, options.seed)
    # Half the bytes; the accuracies below are those of the rounded weights.
    save_checkpoint(options.out, model.half(), backbone="tiny", class_names=MOTIONS)
    saved = load_checkpoint(options.out).build_model()
    action, region = evaluate(saved, 480, 112, options.seed + 1)
    print(
        f"{options.out}: {options.out.stat().st_size} bytes; on 480 fresh clips the action head is "
        f"right for {100 * action:.1f} % (chance {100 / len(MOTIONS):.1f} %), the region head for "
        f"{100 * region:.1f} % (chance 70 %)"
    )


if __name__ == "__main__":
    main()
