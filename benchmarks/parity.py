"""How far features are from the slow per-clip reference, by decoder and precision.

    python -m benchmarks.parity VIDEO ... [--weights i3d-kinetics400] [--backbone r2plus1d_34]

For each video, decoder and precision: the largest L2 error of a row, relative to the row's length,
and relative to the spread of the video's rows around their mean (random networks map all clips
close together, which flatters the first figure). The reference decodes with PyAV, whole, and runs
the plain module on one clip after another in fp32.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.extraction import reference
from tspcli.encoders import load_encoder
from tspcli.extraction import extract
from tspcli.store import open_store
from tspcli.video import is_installed

CASES = [
    ("pyav", "fp32"), ("pyav", "auto"), ("pyav", "bf16"),
    ("decord", "fp32"), ("torchcodec", "fp32"), ("auto", "auto"),
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--weights", default="random")
    parser.add_argument("--backbone")
    parser.add_argument("--stride", type=int, default=16)
    arguments = parser.parse_args()
    plain = load_encoder(
        arguments.weights, backbone=arguments.backbone, device="cpu", precision="fp32", fast=False
    )
    is_i3d = plain.backbone == "i3d"
    length = plain.sampling.clip_length
    print(f"{plain.backbone}, weights {arguments.weights}, stride {arguments.stride}")
    for video in arguments.videos:
        expected = reference.features(
            video, plain.module.features, arguments.stride, length, i3d=is_i3d
        )
        for decoder, precision in CASES:
            if decoder != "auto" and not is_installed(decoder):
                print(f"{video.name:24} {decoder:10} not installed")
                continue
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "f.h5"
                report = extract(
                    video, out, weights=arguments.weights, backbone=arguments.backbone,
                    device="cpu", precision=precision, decoder=decoder, stride=arguments.stride,
                )  # fmt: skip
                if report.failed:
                    print(f"{video.name:24} {decoder:10} {report.failed[0].detail}")
                    continue
                with open_store(out) as store:
                    rows = store[report.videos[0].key].rows
            print(
                f"{video.name:24} {decoder:10} {precision:5} {len(rows):4} rows  "
                f"relative {reference.relative_error(rows, expected):.1e}  "
                f"to spread {reference.error_to_spread(rows, expected):.1e}"
            )


if __name__ == "__main__":
    main()
