"""Time the metrics at ActivityNet's size, beside the official evaluation code if it is at hand.

    python benchmarks/metrics.py --official ActivityNet/Evaluation

``--official`` is the Evaluation folder of a clone of github.com/activitynet/ActivityNet; it needs
pandas and joblib. That code is Python 2: it is loaded with the few spellings changed that Python 3
and today's numpy have no more, and its class loop in this process. Both sides read the same files,
and the largest difference between their figures is printed with the ratio of their times.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import re
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import numpy as np

from tspcli.annotations import read_actions
from tspcli.localization.metrics import evaluate_detection, evaluate_proposals
from tspcli.localization.results import ground_truth_table, read_results

SPELLINGS = (
    (r"^import urllib2$", "import urllib.request as urllib2"),
    (r"\.iteritems\(\)", ".items()"),
    (r"np\.(float|int)\b", r"\1"),
    (r"\bxrange\b", "range"),
    (r"np\.trapz", "np.trapezoid"),
    (r"^( *)print (.*)$", r"\1print(\2)"),
    (r"n_jobs=len\(self\.activity_index\)", "n_jobs=1"),
)


def load_official(folder: Path) -> tuple[Any, Any]:
    """The official modules for detection and for proposals."""
    modules = {}
    for name in ("utils", "eval_detection", "eval_proposal"):
        source = (folder / f"{name}.py").read_text()
        for pattern, replacement in SPELLINGS:
            source = re.sub(pattern, replacement, source, flags=re.MULTILINE)
        module = types.ModuleType(name)
        sys.modules[name] = module
        exec(compile(source, f"{name}.py", "exec"), module.__dict__)
        modules[name] = module
    return modules["eval_detection"], modules["eval_proposal"]


def write_files(folder: Path, n_videos: int, n_proposals: int, seed: int) -> tuple[Path, Path]:
    """Ground truth and results like those of a proposal network with video-level classes."""
    rng = random.Random(seed)
    database, results = {}, {}
    labels = [f"class {index}" for index in range(200)]
    for index in range(n_videos):
        name, duration_s = f"video{index:05d}", rng.uniform(10, 230)
        label = labels[index % 200]
        truths = []
        for _ in range(min(1 + int(rng.expovariate(1.8)), 20)):
            start_s = rng.uniform(0, 0.8 * duration_s)
            truths.append((start_s, rng.uniform(start_s + 0.5, duration_s)))
        items = []
        for _ in range(n_proposals):
            start_s, end_s = rng.choice(truths)
            spread = rng.choice((0.05, 0.3, 2.0)) * (end_s - start_s)
            a, b = sorted((start_s + rng.gauss(0, spread), end_s + rng.gauss(0, spread)))
            guess = label if rng.random() < 0.8 else rng.choice(labels)
            items.append({"segment": [a, b], "score": rng.random(), "label": guess})
        database[name] = {
            "duration": duration_s,
            "subset": "validation",
            "annotations": [{"segment": list(truth), "label": label} for truth in truths],
        }
        results[name] = items
    truth_path, results_path = folder / "truth.json", folder / "results.json"
    truth_path.write_text(json.dumps({"database": database, "taxonomy": [], "version": ""}))
    results_path.write_text(json.dumps({"version": "", "results": results, "external_data": {}}))
    return truth_path, results_path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--official", type=Path, help="Evaluation folder of the official code")
    parser.add_argument("--videos", type=int, default=4900)
    parser.add_argument("--proposals", type=int, default=100, help="a video")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        truth, results = write_files(Path(folder), args.videos, args.proposals, args.seed)
        begin = time.perf_counter()
        ground_truth = ground_truth_table(read_actions(truth, "validation"))
        predictions = read_results(results)
        reading = time.perf_counter() - begin
        begin = time.perf_counter()
        detection = evaluate_detection(ground_truth, predictions)
        detecting = time.perf_counter() - begin
        begin = time.perf_counter()
        proposals = evaluate_proposals(ground_truth, predictions)
        proposing = time.perf_counter() - begin
        print(f"{len(ground_truth)} ground truths, {len(predictions)} predictions")
        print(f"here: reading {reading:.2f} s, mAP {detecting:.2f} s, AR and AUC {proposing:.2f} s")
        if args.official is None:
            return
        eval_detection, eval_proposal = load_official(args.official)
        common = {"subset": "validation", "check_status": False}
        silent = io.StringIO()

        begin = time.perf_counter()
        other = eval_proposal.ANETproposal(
            str(truth), str(results), max_avg_nr_proposals=100, **common
        )
        loading = time.perf_counter() - begin
        begin = time.perf_counter()
        other.evaluate()
        elapsed = time.perf_counter() - begin
        difference = np.abs(other.recall - proposals.recall).max()
        report("AR and AUC", loading, elapsed, reading, proposing, difference)

        begin = time.perf_counter()
        other = eval_detection.ANETdetection(str(truth), str(results), **common)
        loading = time.perf_counter() - begin
        begin = time.perf_counter()
        with contextlib.redirect_stdout(silent):
            other.evaluate()
        elapsed = time.perf_counter() - begin
        columns = [other.activity_index[label] for label in detection.labels]
        difference = np.abs(other.ap[:, columns] - detection.ap).max()
        report("mAP", loading, elapsed, reading, detecting, difference)


def report(
    what: str, loading: float, elapsed: float, reading: float, ours: float, difference: float
) -> None:
    print(
        f"official, {what}: reading {loading:.1f} s, evaluating {elapsed:.1f} s; "
        f"{elapsed / ours:.0f} times as long, with reading "
        f"{(loading + elapsed) / (reading + ours):.0f} times; largest difference {difference:.1e}",
        flush=True,
    )


if __name__ == "__main__":
    main()
