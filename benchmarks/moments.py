"""How well moments are found by example: ``python -m benchmarks.moments STORE ANNOTATIONS``.

Annotated actions are the examples, and the other videos are searched. A moment is right if it lies
on an action of the example's class with a tIoU of at least 0.3. Chance is the same for moments
drawn at random.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tspcli.analysis.moments import MomentIndex, Span
from tspcli.annotations import read_annotations
from tspcli.core.video_names import pair_names
from tspcli.store import open_store

N_EXAMPLES = 200
RANKS = (1, 5, 10)
TIOU = 0.3


def is_right(segments, start_s: float, end_s: float, label: str) -> bool:
    for segment in segments:
        shared = min(segment.end_s, end_s) - max(segment.start_s, start_s)
        union = max(segment.end_s, end_s) - min(segment.start_s, start_s)
        if segment.label == label and shared >= TIOU * union:
            return True
    return False


def main(store_path: str, annotations_path: str) -> None:
    rng = np.random.default_rng(0)
    annotations = read_annotations(Path(annotations_path))
    with open_store(store_path) as store:
        names = pair_names(list(store), annotations)
        segments = {key: annotations[name].segments for key, name in names.items()}
        examples = [(key, s) for key, own in segments.items() for s in own]
        chosen = [examples[i] for i in rng.permutation(len(examples))[:N_EXAMPLES]]
        index = MomentIndex([store])
        found, chance = [], []
        for key, example in chosen:
            like = Span(key, example.start_s, example.end_s)
            others = [name for name in segments if name != key]
            moments = [m for m in index.search(like, top=4 * max(RANKS)) if m.key in others]
            # Spans as long as the found ones, anywhere.
            length_s = moments[0].end_s - moments[0].start_s
            drawn = []
            for other in rng.choice(others, max(RANKS)):
                start_s = rng.uniform(0, max(0.0, float(store[other].end_s[-1]) - length_s))
                drawn.append((other, start_s, start_s + length_s))
            ranked = [(m.key, m.start_s, m.end_s) for m in moments[: max(RANKS)]]
            for hits, some in ((found, ranked), (chance, drawn)):
                hits.append(
                    [is_right(segments[k], start, end, example.label) for k, start, end in some]
                )
    print(f"{len(chosen)} examples, {index.n_rows} rows")
    for name, hits in (("found", found), ("chance", chance)):
        at = [f"@{rank} {np.mean([any(h[:rank]) for h in hits]):.3f}" for rank in RANKS]
        print(f"{name}: {', '.join(at)}, precision@10 {np.mean([np.mean(h) for h in hits]):.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
