"""Find actions in untrimmed videos from their features, and measure how well that went.

* :func:`train`: a boundary-matching network on feature stores and annotations.
* :func:`predict`: proposals and labels for the videos of a store.
* :func:`evaluate`: results against annotations (mAP over tIoU; AR@AN and AUC).

The metrics need numpy alone; torch is imported with :func:`train` and :func:`predict`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tspcli.localization.evaluation import evaluate as evaluate
    from tspcli.localization.prediction import predict as predict
    from tspcli.localization.training import train as train

_MODULES = {"evaluate": "evaluation", "predict": "prediction", "train": "training"}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    """Import the module of a public name when it is first used."""
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
