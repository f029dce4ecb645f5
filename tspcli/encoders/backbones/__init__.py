"""The registry of backbones; each module of this folder registers its own.

A backbone is a module that turns normalised clips (B, 3, T, H, W) into pooled features (B, D). To
add one, put a file here that calls :func:`register_backbone`; nothing else has to change.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from tspcli.encoders.backbones.registry import (
    BACKBONES,
    BackboneSpec,
    backbone_spec,
    build_backbone,
    register_backbone,
)

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["BACKBONES", "BackboneSpec", "backbone_spec", "build_backbone", "register_backbone"]
