"""The ways in which a run's videos are done; each has the same outcome."""

from __future__ import annotations

from tspcli.encoders import Encoder
from tspcli.extraction.facts import EncoderFacts
from tspcli.extraction.runners.task import Board, Runner, Task
from tspcli.extraction.settings import ExtractConfig

__all__ = ["Board", "EncoderFacts", "Runner", "Task", "choose_runner"]


def choose_runner(config: ExtractConfig, encoder: Encoder | None = None) -> Runner:
    """The runner that the user's choices call for.

    Args:
        config: The user's choices.
        encoder: An encoder that is loaded already.
    """
    from tspcli.extraction.runners.local import LocalRunner

    return LocalRunner(config, encoder)
