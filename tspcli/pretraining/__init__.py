"""Pretraining: annotations, clips of untrimmed videos, the TSP and TAC training loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tspcli.core.lazy_face import lazy_face

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

__getattr__, __dir__ = lazy_face(__name__, _MODULES)
