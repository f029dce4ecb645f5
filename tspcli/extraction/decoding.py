"""Where an engine's frames come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch

from tspcli.errors import DependencyError
from tspcli.extraction.facts import EncoderFacts
from tspcli.extraction.settings import ExtractConfig
from tspcli.timeline import Sampling
from tspcli.video import DECODERS, DecodePool, Event, Idle, VideoFile, Woken

_CPU_CHUNK_BYTES = 1 << 20
_CUDA_CHUNK_BYTES = 4 << 20
"""Frames that travel together. On a CPU every chunk under way costs four times its size in prepared
float32 frames of the same memory; on CUDA larger copies are worth more."""


class EventSource(Protocol):
    """A decode pool, here or in another process."""

    def live(self) -> Iterator[Event | Idle | Woken]:
        """What becomes of the videos, and words of the source itself; once, in one thread."""

    def wake(self) -> None:
        """Make :meth:`live` give a :class:`Woken`, soon; callable from any thread."""

    def drain(self) -> None:
        """Begin no further video; :meth:`live` ends with those under way."""

    def close(self) -> None:
        """End :meth:`live`; callable from any thread."""


def open_pool(
    videos: Sequence[VideoFile],
    encoder: EncoderFacts,
    sampling: Sampling,
    config: ExtractConfig,
    *,
    devices: Sequence[str],
    hold_open: bool = False,
) -> DecodePool:
    """A pool that decodes what an encoder takes.

    Args:
        videos: In the order in which they are started.
        encoder: The encoder, or one of several that are alike.
        sampling: How videos are cut into clips.
        config: The user's choices.
        devices: Where the run's encoders compute; a decoder that uses GPUs uses those.
        hold_open: Wait for further videos.

    Raises:
        DependencyError: If the decoder needs a GPU and there is none.
    """
    decoder = DECODERS.get(config.decoder)
    if decoder is not None and decoder.on_gpu and not torch.cuda.is_available():
        raise DependencyError(
            f"The decoder {decoder.name} needs a GPU, and torch sees none.",
            remedy="Use --decoder auto, or see `tsp doctor`.",
        )
    return DecodePool(
        videos,
        sampling=sampling,
        spec=encoder.frame_spec,
        workers=config.workers,
        decoder=config.decoder,
        timeout_s=config.decode_timeout_s,
        chunk_bytes=_CPU_CHUNK_BYTES if encoder.device_type == "cpu" else _CUDA_CHUNK_BYTES,
        devices=[name for name in devices if name.startswith("cuda")],
        hold_open=hold_open,
    )
