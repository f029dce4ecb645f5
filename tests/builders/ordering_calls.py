"""Every call in the package that orders work between threads, streams and the host.

On the simulated device each is left out in turn (:class:`Machine`'s ``without``), and the test of
the run that makes it has to notice. To repeat it: ``pytest -k "left_out or ordering"``.
"""

from __future__ import annotations

import ast
from pathlib import Path

import tspcli
from tests.builders.simulated_accelerator import Order

_CALLS = {"wait_event", "wait_stream", "record_event", "record_stream", "synchronize"}

ORDERING_CALLS: dict[str, dict[str, Order]] = {
    "extraction": {
        "feeder.prepare.record_event": "late",
        "feeder.receive.wait_event": "late",
        "feeder.receive.record_stream": "side streams first",
        "encoder._arriving.record": "late",
        "encoder.wait.synchronize": "late",
    },
    "hardware decoding": {
        "decode_thread.flush.record_event": "late",
        "feeder.receive.wait_event": "late",
        "feeder.receive.record_stream": "side streams first",
    },
    "recording a graph": {"runtimes.record_graph.wait_stream": "side streams first"},
    "training": {
        "trainer._ask_whether_finite.record": "late",
        "trainer.check_losses.synchronize": "late",
    },
}
"""By run and by ``module.function.call``, an order of the device's work in which it is missed."""

WITHOUT_DATA = {"distributed.barrier.synchronize"}
"""Processes only wait there for each other: nothing is read afterwards that was written before."""


def ordering_calls() -> set[str]:
    """The calls that are in the package's source."""
    found = set()
    for path in Path(tspcli.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if not any(name in text for name in (*_CALLS, "current_stream")):
            continue
        functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)]
        innermost = {
            call: function.name
            for function in functions  # outer functions first
            for call in ast.walk(function)
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
        }
        for call, function in innermost.items():
            assert isinstance(call.func, ast.Attribute)
            name = call.func.attr
            if name in _CALLS or (name == "record" and "current_stream" in ast.unparse(call)):
                found.add(f"{path.stem}.{function}.{name}")
    return found
