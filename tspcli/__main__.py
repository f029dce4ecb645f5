"""``python -m tspcli`` is ``tsp``, also under torchrun."""

from __future__ import annotations

from tspcli.cli.main import entry

if __name__ == "__main__":
    entry()
