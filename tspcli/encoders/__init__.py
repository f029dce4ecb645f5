"""Encoders: preprocessing, backbones, the TSP model, checkpoints and the registry of weights.

Names are imported when they are used: listing weights needs no torch. Neither do help pages, which
list the precisions and runtimes defined here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from tspcli.core.lazy_face import lazy_face

if TYPE_CHECKING:
    from tspcli.encoders.backbones import BACKBONES as BACKBONES
    from tspcli.encoders.backbones import BackboneEntry as BackboneEntry
    from tspcli.encoders.backbones import BackboneSpec as BackboneSpec
    from tspcli.encoders.backbones import build_backbone as build_backbone
    from tspcli.encoders.checkpoints import Checkpoint as Checkpoint
    from tspcli.encoders.checkpoints import load_checkpoint as load_checkpoint
    from tspcli.encoders.checkpoints import save_checkpoint as save_checkpoint
    from tspcli.encoders.encoder import Encoder as Encoder
    from tspcli.encoders.loading import load_encoder as load_encoder
    from tspcli.encoders.preprocessing import Preprocessing as Preprocessing
    from tspcli.encoders.tsp_model import Heads as Heads
    from tspcli.encoders.tsp_model import TspModel as TspModel
    from tspcli.encoders.weights import fetch_weights as fetch_weights
    from tspcli.encoders.weights import list_weights as list_weights

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
PRECISIONS = ("auto", *get_args(Precision))
Runtime = Literal["torch", "compiled", "openvino"]
RUNTIMES = get_args(Runtime)

_MODULES = {
    "BACKBONES": "backbones",
    "BackboneEntry": "backbones",
    "BackboneSpec": "backbones",
    "Checkpoint": "checkpoints",
    "Encoder": "encoder",
    "Heads": "tsp_model",
    "Preprocessing": "preprocessing",
    "TspModel": "tsp_model",
    "build_backbone": "backbones",
    "fetch_weights": "weights",
    "list_weights": "weights",
    "load_checkpoint": "checkpoints",
    "load_encoder": "loading",
    "save_checkpoint": "checkpoints",
}
_DEFINED_HERE = ("PRECISIONS", "RUNTIMES", "Precision", "Runtime")
__all__ = sorted((*_MODULES, *_DEFINED_HERE))


__getattr__, __dir__ = lazy_face(__name__, _MODULES, *_DEFINED_HERE)
