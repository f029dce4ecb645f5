"""The ways in which a run's videos are done; each has the same outcome."""

from __future__ import annotations

from dataclasses import replace

from tspcli.core.text import counted
from tspcli.encoders import Encoder
from tspcli.errors import UsageError
from tspcli.extraction.extract_config import EncoderFacts, ExtractConfig
from tspcli.extraction.task import Board, Runner, Task

__all__ = ["Board", "EncoderFacts", "Runner", "Task", "choose_runner"]


def choose_runner(config: ExtractConfig, encoder: Encoder | None = None) -> Runner:
    """The runner that the user's choices call for.

    Args:
        config: The user's choices.
        encoder: An encoder that is loaded already.

    Raises:
        UsageError: If the choices contradict each other or the machine.
    """
    devices = [] if config.engine == "ray" else device_names(config)
    if encoder is not None and len(devices) != 1:
        raise UsageError(
            "An encoder that is loaded already cannot compute in several processes.",
            remedy="Name its weights in the settings instead.",
        )
    if config.profile is not None and len(devices) != 1:
        raise UsageError(
            "A profile shows one process, and this run has several that encode.",
            remedy="Leave out --profile, or run on one device.",
        )
    if config.engine == "ray":
        from tspcli.extraction.ray_transport import RayRunner

        return RayRunner(config)
    if len(devices) > 1:
        from tspcli.extraction.supervisor import DevicesRunner

        return DevicesRunner(config, devices)
    from tspcli.extraction.transports import LocalRunner

    return LocalRunner(replace(config, device=devices[0]), encoder)


def device_names(config: ExtractConfig) -> list[str]:
    """The devices that the user chose; one for each process that is to encode.

    Raises:
        UsageError: If there are fewer GPUs than asked for, or both options name devices.
    """
    if config.gpus is None:
        return [name.strip() for name in config.device.split(",")]
    if config.device not in ("auto", "cuda"):
        raise UsageError(
            f"Both --gpus {config.gpus} and --device {config.device} are given.",
            remedy="Give one of the two.",
        )
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wanted = found if config.gpus == "all" else int(config.gpus)
    if wanted > found or not wanted:
        raise UsageError(
            f"--gpus {config.gpus}: torch sees {counted(found, 'GPU')}.",
            remedy="Use --device cpu, or see `tsp doctor`.",
        )
    return [f"cuda:{index}" for index in range(wanted)]
