"""Find actions in untrimmed videos from their features, and measure how well that went.

* :func:`train`: a boundary-matching network on feature stores and annotations.
* :func:`predict`: proposals and labels for the videos of a store.
* :func:`evaluate`: results against annotations (mAP over tIoU; AR@AN and AUC).

The metrics need numpy alone; torch is imported with :func:`train` and :func:`predict`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tspcli.core.lazy_face import lazy_face

if TYPE_CHECKING:
    from tspcli.localization.evaluation import evaluate as evaluate
    from tspcli.localization.prediction import predict as predict
    from tspcli.localization.training import train as train

_MODULES = {"evaluate": "evaluation", "predict": "prediction", "train": "training"}
__all__ = sorted(_MODULES)

__getattr__, __dir__ = lazy_face(__name__, _MODULES)
