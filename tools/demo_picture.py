"""What the demo ends with: a table of the store and a picture of one video.

    python tools/demo_picture.py feats.h5 dancer dancer.png

The picture has the similarity of every clip to every other one and, on the same time axis, the
classes that the encoder's own action head finds most likely.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from tspcli.encoders import Encoder
    from tspcli.store.store import FeatureStore
    from tspcli.store.video_features import VideoFeatures

SMOOTHING_ROWS = 5
N_CLASSES = 5
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")


def class_probabilities(encoder: Encoder, rows: np.ndarray) -> np.ndarray:
    """(N, classes) for features (N, D), each the mean over SMOOTHING_ROWS neighbouring clips.

    One clip lasts 0.64 s, too short to be sure of an action.
    """
    import numpy as np
    import torch

    reach = SMOOTHING_ROWS // 2
    padded = np.pad(rows, ((reach, reach), (0, 0)), mode="edge")
    smooth = np.stack([padded[i : i + len(rows)] for i in range(SMOOTHING_ROWS)]).mean(axis=0)
    logits = encoder.classify(torch.from_numpy(smooth.astype(np.float32)))
    assert logits is not None, "these weights have no action head"
    return logits.softmax(dim=-1).numpy()


def print_table(store: FeatureStore, encoder: Encoder) -> None:
    """One line a video: how many rows, and what the encoder sees in it on the whole."""
    from rich.console import Console
    from rich.table import Table

    names = encoder.class_names or ()
    table = Table("video", "clips", "seconds", "most likely classes (of 400)", box=None)
    for key in store:
        video = store[key]
        mean = class_probabilities(encoder, video.rows).mean(axis=0)
        best = mean.argsort()[::-1][:3]
        text = ", ".join(f"{names[i]} {mean[i]:.2f}" for i in best)
        table.add_row(key, str(video.n_rows), f"{video.end_s[-1]:.1f}", text)
    Console(highlight=False).print(table)


def draw(video: VideoFeatures, encoder: Encoder, target: Path) -> None:
    """Draw the similarity matrix over the most likely classes, on one time axis."""
    import matplotlib
    import numpy as np

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows, names = video.rows, encoder.class_names or ()
    # Without their mean, which all clips of a video share, clips differ visibly.
    centred = rows - rows.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    probabilities = class_probabilities(encoder, rows)
    best = probabilities.mean(axis=0).argsort()[::-1][:N_CLASSES]
    span = (float(video.start_s[0]), float(video.end_s[-1]))

    figure = plt.figure(figsize=(6, 8.3))
    left, width = 0.12, 0.75  # of 6 inches; the matrix is square
    upper = figure.add_axes((left, 0.425, width, width * 6 / 8.3))
    bar = figure.add_axes((left + width + 0.02, 0.425, 0.025, width * 6 / 8.3))
    lower = figure.add_axes((left, 0.16, width, 0.19), sharex=upper)

    image = upper.imshow(
        centred @ centred.T, extent=(*span, span[1], span[0]), cmap="magma", vmin=-0.5, vmax=1
    )
    upper.set(ylabel="time [s]", title=f"{video.key}: {video.n_rows} clips beside each other")
    figure.colorbar(image, cax=bar).set_label("cosine similarity, the mean clip taken away")
    for colour, i in zip(COLOURS, best, strict=True):
        lower.plot(video.center_s, probabilities[:, i], label=names[i], color=colour, lw=1.6)
    lower.set(xlabel="time [s]", ylabel="probability", xlim=span, ylim=(0, 1.02))
    lower.set_title(f"the most likely of {len(names)} classes", fontsize=10)
    lower.legend(loc="upper center", bbox_to_anchor=(0.5, -0.3), ncols=3, fontsize=8, frameon=False)
    figure.savefig(target, dpi=100, bbox_inches="tight")
    plt.close(figure)


def main(arguments: list[str]) -> int:
    """Print the table and write the picture."""
    if len(arguments) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    from tspcli import load_encoder, open_store

    path, key, target = Path(arguments[0]), arguments[1], Path(arguments[2])
    with open_store(path) as store:
        encoder = load_encoder(str(store.metadata.weights), device="cpu")
        print_table(store, encoder)
        draw(store[key], encoder, target)
    print(f"\n{target}: the clips of {key} beside each other, and what the encoder sees in them")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
