"""A run that is interrupted keeps what is finished, and the next one goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tspcli.core.progress import Reporter
from tspcli.encoders import Encoder
from tspcli.errors import StoreError
from tspcli.extraction import extract
from tspcli.store import open_store


class Interrupt(Reporter):
    def result(self, result: object) -> None:
        raise KeyboardInterrupt


def test_an_interrupted_run_keeps_what_is_finished(
    sources: Path, encoder: Encoder, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        # Clip by clip: in larger batches all videos may have ended by then.
        extract(
            sources, tmp_path / "f.h5", encoder=encoder, reporter=Interrupt(), workers=1,
            batch_size=1,
        )  # fmt: skip
    with pytest.raises(StoreError):
        open_store(tmp_path / "f.h5")
    report = extract(sources, tmp_path / "f.h5", encoder=encoder)
    assert any(video.status == "kept" for video in report.videos)
    with open_store(tmp_path / "f.h5") as store:
        assert sorted(store) == ["a", "b", "short"]


def test_an_interrupted_run_that_overwrites_goes_on_too(
    sources: Path, encoder: Encoder, tmp_path: Path
) -> None:
    def interrupted(**options: Any) -> None:
        with pytest.raises(KeyboardInterrupt):
            extract(
                sources, out, encoder=encoder, reporter=Interrupt(), workers=1, batch_size=1,
                **options,
            )  # fmt: skip
        assert list(out.with_name("f.h5.parts").glob("*.part"))

    out = tmp_path / "f.h5"
    extract(sources, out, encoder=encoder, stride=8)
    interrupted(overwrite=True)
    report = extract(sources, out, encoder=encoder, overwrite=True)
    assert report.with_status("kept") and report.with_status("done")
    with open_store(out) as store:
        assert sorted(store) == ["a", "b", "short"]
        assert store.metadata.sampling is not None and store.metadata.sampling.stride == 16
    # What is done is replaced all the same, and so is what another run has begun.
    assert not extract(sources, out, encoder=encoder, overwrite=True).with_status("kept")
    out.unlink()
    interrupted()
    assert not extract(sources, out, encoder=encoder, overwrite=True).with_status("kept")
    interrupted(overwrite=True, stride=8)
    assert not extract(sources, out, encoder=encoder, overwrite=True).with_status("kept")


def test_a_store_of_two_runs_is_byte_for_byte_that_of_one(
    sources: Path, encoder: Encoder, tmp_path: Path
) -> None:
    whole, grown = tmp_path / "whole.h5", tmp_path / "grown.h5"
    extract(sources, whole, encoder=encoder, workers=1, batch_size=1)
    extract(sources / "b.mp4", grown, encoder=encoder, workers=1, batch_size=1)
    extract(sources, grown, encoder=encoder, workers=1, batch_size=1)
    assert whole.read_bytes() == grown.read_bytes()


def test_the_resolved_sampling_is_stated_first(
    sources: Path, encoder: Encoder, tmp_path: Path
) -> None:
    """Whoever changes the clips' length alone sees that the stride stays."""
    said: list[str] = []
    listener = Reporter()
    listener.message = said.append  # type: ignore[method-assign]  # of this one alone
    extract(
        sources / "b.mp4",
        tmp_path / "f.h5",
        encoder=encoder,
        frame_rate=25,
        clip_length=32,
        reporter=listener,
    )
    for part in ("clips of 1.28 s", "every 0.64 s (stride 16)", "from a 30 Hz grid", "112×112"):
        assert part in said[0]
