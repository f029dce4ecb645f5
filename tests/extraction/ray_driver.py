"""One extraction on a Ray cluster, as a program that can be killed."""

from __future__ import annotations

import sys

from tspcli.extraction import ExtractConfig, extract

OPTIONS = ExtractConfig(
    weights="random", backbone="tiny", seed=1, workers=2, batch_size=3, stride=4, device="cpu"
)


if __name__ == "__main__":
    videos, out, address = sys.argv[1:]
    report = extract(videos, out, config=OPTIONS, engine="ray", ray_address=address)
    for note in report.notes:
        print(note, file=sys.stderr)
