"""Which decoders `auto` takes, and in which order."""

from __future__ import annotations

import pytest

from tspcli.errors import DependencyError
from tspcli.video import registry
from tspcli.video.registry import resolve_decoders


@pytest.mark.parametrize(
    ("installed", "order"),
    [
        ({"pyav", "decord", "torchcodec", "torchcodec-cuda"}, ("pyav", "decord")),
        ({"pyav"}, ("pyav",)),
        ({"decord", "torchcodec"}, ("decord",)),
    ],
)
def test_auto_takes_the_fastest_first_and_never_torchcodec(
    monkeypatch: pytest.MonkeyPatch, installed: set[str], order: tuple[str, ...]
) -> None:
    monkeypatch.setattr(registry, "is_installed", installed.__contains__)
    assert resolve_decoders("auto") == order


def test_auto_without_any_decoder_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "is_installed", lambda name: name == "torchcodec")
    with pytest.raises(DependencyError) as caught:
        resolve_decoders("auto")
    assert "pip install av" in str(caught.value.remedy)
