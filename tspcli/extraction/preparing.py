"""From shared memory to the encoder's device, beside the encoder's own work."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tspcli.encoders import Encoder


@dataclass(frozen=True)
class PreparedFrames:
    """Normalised frames on their way to the device.

    Attributes:
        pixels: (N, 3, h, w); on CUDA perhaps not there yet.
        ready: What the device has to wait for before it reads them; None if they are there.
    """

    pixels: torch.Tensor
    ready: torch.cuda.Event | None = None

    def receive(self) -> torch.Tensor:
        """The frames, for use on this thread's current stream; the thread itself does not wait."""
        if self.ready is not None:
            stream = torch.cuda.current_stream(self.pixels.device)
            stream.wait_event(self.ready)
            # They were allocated on another stream, which must not use their memory again before
            # this one is done with them.
            self.pixels.record_stream(stream)
        return self.pixels


class FramePreparer:
    """Prepares chunk after chunk; to be used by one thread.

    On CUDA it has a stream of its own and copies from page-locked memory: a copy from ordinary
    memory waits for all that runs on its stream, which would be the encoder, and makes that wait.

    Args:
        encoder: Whose frames they are.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._stream: torch.cuda.Stream | None = None
        if encoder.device.type == "cuda":
            self._stream = torch.cuda.Stream(encoder.device)

    def prepare(self, pixels: torch.Tensor) -> PreparedFrames:
        """Start to prepare (N, h, w, 3) frames; their memory may be used again at once."""
        if self._stream is None:
            return PreparedFrames(self._encoder.prepare(pixels))
        # Torch keeps the page-locked copy until the stream has read it.
        staged = pixels.pin_memory()
        with torch.cuda.stream(self._stream):
            prepared = self._encoder.prepare(staged)
            return PreparedFrames(prepared, self._stream.record_event())
