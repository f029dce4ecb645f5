"""Make the embedded ``tiny`` weights from a finished ``python -m reproduction``: TSP without GVF.

Without global features, because then both heads work on any video without a second file. The
weights are rounded to 16 bits; what that does to the features is printed.

    python -m reproduction --scale tiny --seeds 0 --out repro/
    python tools/embed_tiny.py repro/ --out weights/tiny.pth
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from tspcli.core.files import file_sha256
from tspcli.encoders.checkpoints import load_checkpoint, save_checkpoint
from tspcli.pretraining.training_log import read_results
from tspcli.video import list_videos

VARIANT, SHARE = "tsp-none", 0.9


def rounding_error(exact: Path, rounded: Path, videos: Path) -> float:
    """The largest relative difference of the features of one validation video."""
    from tempfile import TemporaryDirectory

    from tspcli.extraction import ExtractConfig, extract
    from tspcli.store import open_store

    path = next(iter(list_videos([videos]))).path
    rows = []
    with TemporaryDirectory() as folder:
        for number, weights in enumerate((exact, rounded)):
            store = Path(folder) / f"{number}.h5"
            config = ExtractConfig(weights=str(weights), device="cpu", workers=1, precision="fp32")
            extract(path, store, config=config)
            with open_store(store) as opened:
                rows.append(torch.from_numpy(opened[next(iter(opened))].rows))
    return float(((rows[0] - rows[1]).norm(dim=1) / rows[0].norm(dim=1)).max())


def main() -> None:
    """Round, save, and print what the registry has to say of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    cell = options.root / f"p{SHARE}" / f"seed{options.seed}"
    run = cell / VARIANT / "run"
    exact = run / "last.pth"
    checkpoint = load_checkpoint(exact)
    last = read_results(run)[-1]
    # Which run it came from stands in the file; a test holds the registry's claims against it.
    trained_by = {
        "command": f"python -m reproduction --scale tiny --seeds {options.seed}",
        "encoder": VARIANT,
        "share": SHARE,
        "seed": options.seed,
        "epoch": last.epoch,
        "checkpoint_sha256": file_sha256(exact),
        "action_accuracy": last.valid["action_accuracy"],
        "region_accuracy": last.valid["region_accuracy"],
    }
    save_checkpoint(
        options.out,
        checkpoint.build_model().half(),
        backbone="tiny",
        class_names=checkpoint.class_names,
        sampling=checkpoint.sampling,
        preprocessing=checkpoint.preprocessing,
        extra={"trained_by": trained_by},
    )
    error = rounding_error(exact, options.out, cell / "data" / "videos" / "valid")
    size = options.out.stat().st_size
    print(json.dumps({"sha256": file_sha256(options.out), "size_bytes": size}, indent=2))
    print(
        f"validation clips: action {100 * last.valid['action_accuracy']:.1f} %, region "
        f"{100 * last.valid['region_accuracy']:.1f} %; rounding moves features by at most "
        f"{100 * error:.2f} % of their length"
    )


if __name__ == "__main__":
    main()
