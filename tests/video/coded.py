"""What becomes of a coded picture on an encoder's device, here a CPU."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from tspcli.encoders.yuv_frames import YuvFrames
from tspcli.sampling.pixels import FrameSpec
from tspcli.sampling.yuv import YuvReading
from tspcli.video.source import YuvPicture


def frame_of(picture: YuvPicture, spec: FrameSpec) -> npt.NDArray[np.float32]:
    """The scaled frame, (h, w, 3), float32 in 0..255."""
    reading = YuvReading(picture.format, spec)
    packed = np.empty((1, reading.n_bytes), np.uint8)
    reading.pack(picture.planes, packed[0])
    frames = YuvFrames(reading, torch.device("cpu"))
    found: npt.NDArray[np.float32] = frames.from_packed(torch.from_numpy(packed))[0].numpy()
    return found
