"""The fused boundary-matching layer beside the plain one: time and peak memory.

    python benchmarks/boundary_matching.py

The plain layer multiplies the sequence by a dense (T, N D T) matrix and convolves the map that
comes out, as the paper describes it. Each form runs forward and backward in a process of its own,
at the paper's sizes by default; the outputs of both are compared as well.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from torch import Tensor
from torch.nn import functional

from tspcli.localization.boundary_matching import BoundaryMatching, sampling_matrix
from tspcli.localization.localize_config import BmnConfig


def plain(layer: BoundaryMatching, mask: Tensor, sequence: Tensor, config: BmnConfig) -> Tensor:
    """Sample all points of all proposals, then convolve over the points."""
    sampled = (sequence @ mask).unflatten(2, (config.n_samples, config.durations, -1))
    kernel = layer.weight[:, :, :, None, None]
    return functional.conv3d(sampled, kernel, layer.bias).squeeze(2)


def measure(form: str, scale: int, batch: int, repeats: int) -> dict[str, float]:
    torch.manual_seed(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    config = BmnConfig(temporal_scale=scale)
    layer = BoundaryMatching(config.hidden_channels, config.proposal_channels, config)
    sequence = torch.randn(batch, config.hidden_channels, scale, requires_grad=True)
    if form == "plain":
        matrix = sampling_matrix(config).to_dense()
        matrix = matrix.view(config.durations, scale, config.n_samples, scale)
        mask = matrix.permute(3, 2, 0, 1).reshape(scale, -1).contiguous()
        del matrix
    times = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        out = plain(layer, mask, sequence, config) if form == "plain" else layer(sequence)
        out.square().mean().backward()
        times.append(time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": min(times[1:]),
        "mib": (peak - before) / 1024,
        "sum": float(out.detach().double().square().sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=int, default=100, help="T and D")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--form", choices=["fused", "plain"], help="measure this one alone")
    args = parser.parse_args()
    if args.form:
        print(json.dumps(measure(args.form, args.scale, args.batch, args.repeats)))
        return
    found = {}
    for form in ("plain", "fused"):
        command = [sys.executable, __file__, "--form", form, "--scale", str(args.scale)]
        command += ["--batch", str(args.batch), "--repeats", str(args.repeats)]
        found[form] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        print(form, found[form], flush=True)
    ratio = {key: found["plain"][key] / found["fused"][key] for key in ("seconds", "mib", "sum")}
    print(
        f"fused: {ratio['seconds']:.1f} times faster, {ratio['mib']:.1f} times less memory "
        f"from building the layer on; outputs' squared sums have the ratio {ratio['sum']:.6f}"
    )


if __name__ == "__main__":
    main()
