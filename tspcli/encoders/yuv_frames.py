"""Coded pictures to scaled RGB frames on the encoder's device.

What a decode process does with FFmpeg's swscale and OpenCV, in torch: swscale's conversion of the
four neighbours of every pixel, then their weighted mean
(:class:`~tspcli.sampling.yuv.YuvReading` says which they are).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tspcli.sampling.yuv import YuvReading


class YuvFrames:
    """Makes frames of packed pictures; nothing that it does waits for the device.

    Its tensors are copied on the current stream, and it is to be used on that one.

    Args:
        reading: What the pictures are and what becomes of them.
        device: Where they are.
    """

    def __init__(self, reading: YuvReading, device: torch.device) -> None:
        self._shape = reading.shape
        self._rounded = reading.spec.dtype == "uint8"
        self._index = _copied(torch.from_numpy(reading.packed_index()).int().flatten(), device)
        self._weights = _copied(torch.from_numpy(reading.weights), device)
        # Half precision holds these whole numbers, and their sums, exactly.
        self._tables = [
            _copied(torch.from_numpy(table).half(), device) for table in reading.format.tables
        ]

    def from_packed(self, packed: Tensor) -> Tensor:
        """Frames of packed pictures.

        Args:
            packed: (N, bytes), uint8, as :meth:`YuvReading.pack` leaves them, on the device.

        Returns:
            (N, h, w, 3), float32 in 0..255; whole numbers if the spec's dtype is uint8.
        """
        return self.from_samples(packed.index_select(1, self._index))

    def from_samples(self, samples: Tensor) -> Tensor:
        """Frames of the samples that they are made of.

        Args:
            samples: (N, 3 * 4 * h * w), uint8, in the order of :meth:`YuvReading.packed_index`.

        Returns:
            As :meth:`from_packed`.
        """
        count = len(samples)
        by_plane = samples.view(count, 3, -1).transpose(0, 1)
        indices = by_plane.to(torch.int32, memory_format=torch.contiguous_format)
        luma, blue, red = indices.view(3, -1).unbind()
        brightness, v_red, u_green, v_green, u_blue = self._tables
        bright = brightness.index_select(0, luma)
        channels = (
            v_red.index_select(0, red).add_(bright),
            u_green.index_select(0, blue).add_(v_green.index_select(0, red)).add_(bright),
            u_blue.index_select(0, blue).add_(bright),
        )
        scaled = [
            (channel.clamp_(0, 255).view(count, 4, -1) * self._weights).sum(1)
            for channel in channels
        ]
        frames = torch.stack(scaled, dim=2)
        if self._rounded:
            frames = frames.add_(0.5).floor_()
        return frames.view(-1, *self._shape, 3)


def _copied(constant: Tensor, device: torch.device) -> Tensor:
    if device.type == "cpu":
        return constant
    return constant.pin_memory().to(device, non_blocking=True)
