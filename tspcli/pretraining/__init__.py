"""Pretraining: annotations, clips of untrimmed videos, the TSP and TAC training loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tspcli.pretraining.training_log import PretrainReport as PretrainReport
    from tspcli.pretraining.training_recipe import Recipe as Recipe
    from tspcli.pretraining.training_recipe import load_recipe as load_recipe
    from tspcli.pretraining.training_run import pretrain as pretrain

_MODULES = {
    "PretrainReport": "training_log",
    "Recipe": "training_recipe",
    "load_recipe": "training_recipe",
    "pretrain": "training_run",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    """Import the heavy modules only when something of theirs is asked for."""
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
