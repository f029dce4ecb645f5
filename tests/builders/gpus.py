"""GPUs played by patched queries: torch answers as if they were there, and nothing computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

WHEEL = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
"""What torch's default wheels contain code for."""
Gpus = Callable[..., None]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Gpus:
    """Lets torch report GPUs of these compute capabilities."""

    def pretend(
        *capabilities: tuple[int, int], built_for: list[str] = WHEEL, current: int | None = None
    ) -> None:
        def index(device: Any) -> int:
            return device if isinstance(device, int) else device.index or 0

        answers: dict[str, Any] = {
            "is_available": lambda: bool(capabilities),
            "device_count": lambda: len(capabilities),
            "is_initialized": lambda: current is not None,
            "current_device": lambda: current,
            "get_device_capability": lambda device: capabilities[index(device)],
            "get_device_name": lambda device: f"Pretended {index(device)}",
            "get_arch_list": lambda: built_for,
        }
        for name, answer in answers.items():
            monkeypatch.setattr(torch.cuda, name, answer)

    return pretend
