"""The control: ``tsp pretrain`` with region labels permuted among the segments of each video.

    python -m reproduction.permuted pretrain OPTION ...

Everything else stays: clips, action labels, number of steps. What such an encoder gains over TAC
with the same steps cannot come from where actions begin and end.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tspcli.cli.main import main
from tspcli.pretraining import data
from tspcli.pretraining.training_segments import TrainingSegments, build_segments

_SEED = 1


def permute_regions(segments: TrainingSegments) -> TrainingSegments:
    """The same segments with their region labels permuted within each video."""
    rng = np.random.Generator(np.random.Philox(_SEED))
    region = segments.region.copy()
    for video in range(len(segments.filenames)):
        places = np.flatnonzero(segments.video == video)
        region[places] = rng.permutation(region[places])
    return replace(segments, region=region)


def run(arguments: Sequence[str]) -> None:
    """Run a command of ``tsp`` with permuted labels."""

    def permuted(*args: Any, **kwargs: Any) -> TrainingSegments:
        return permute_regions(build_segments(*args, **kwargs))

    setattr(data, "build_segments", permuted)  # noqa: B010 (the package knows nothing of this)
    main(list(arguments))


if __name__ == "__main__":
    run(sys.argv[1:])
