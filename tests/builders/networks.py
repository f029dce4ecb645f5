"""Networks with batch norms as after training, clips for them, and how far rows are apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def shaken(module: nn.Module) -> nn.Module:
    """Batch norms as after training, so that folding has something to fold."""
    generator = torch.Generator().manual_seed(5)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm3d):
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.uniform_(-0.3, 0.3, generator=generator)
            layer.running_var.uniform_(0.5, 1.5, generator=generator)
            with torch.no_grad():
                layer.bias.uniform_(-0.3, 0.3, generator=generator)
                if layer.weight.requires_grad:
                    layer.weight.uniform_(0.5, 1.5, generator=generator)
    return module.eval()


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest relative L2 error of a row, of the rows and of their differences."""
    rows = (found - expected).norm(dim=1) / expected.norm(dim=1)
    spread = (found - expected).norm() / (expected - expected.mean(0)).norm()
    # Random networks map all clips close together: their differences get a looser bar.
    assert spread < 1e-3
    return rows.max().item()


def clips(count: int, frames: int, size: int) -> Tensor:
    return torch.randn(count, 3, frames, size, size, generator=torch.Generator().manual_seed(6))


def random_frames(*shape: int) -> Tensor:
    """Pixels of frames: uint8, of this shape."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def perturbed(module: nn.Module) -> nn.Module:
    """Every parameter random, biases and norms too, so that none can be mistaken for another."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise, alpha=0.1 if parameter.ndim > 1 else 0.3)
    return module.eval()
