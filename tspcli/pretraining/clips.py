"""Reading one clip from anywhere: straight from the video, or from the clip cache."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tspcli.config import FrameSpec
from tspcli.timeline import Sampling
from tspcli.video import VideoSource, open_source, read_clip

_OPEN_VIDEOS = 4


class ClipReader(Protocol):
    """Random access to clips of some videos; picklable, so that loader processes can have it."""

    def read(self, video: int, start_sample: int) -> npt.NDArray[np.uint8]:
        """The clip of a video from a sample on, shape (clip_length, height, width, 3) uint8 RGB.

        It is valid until the next one is read.
        """


class VideoClips:
    """Clips read by seeking in the videos and decoding from the key frame before.

    Args:
        paths: The videos.
        sampling: Rate and length of clips.
        spec: Size of the frames, without a crop.
        decoder: ``auto`` or a decoder's name.
    """

    def __init__(
        self, paths: Sequence[Path], sampling: Sampling, spec: FrameSpec, decoder: str = "auto"
    ) -> None:
        self.paths = list(paths)
        self.sampling = sampling
        self.spec = spec
        self.decoder = decoder
        self._open: OrderedDict[int, VideoSource] = OrderedDict()

    def read(self, video: int, start_sample: int) -> npt.NDArray[np.uint8]:
        """See :class:`ClipReader`.

        Raises:
            VideoError: If the video cannot be decoded there, or ended more than a clip before.
        """
        start_s = Fraction(self.sampling.sample_tick(start_sample)) / self.sampling.grid_rate
        clip_s = self.sampling.clip_length / self.sampling.frame_rate
        return read_clip(self._source(video), start_s, self.sampling, self.spec, late_s=clip_s)

    def close(self) -> None:
        """Close the videos."""
        while self._open:
            self._open.popitem()[1].close()

    def _source(self, video: int) -> VideoSource:
        source = self._open.pop(video, None)
        if source is None:
            source = open_source(self.paths[video], self.decoder, threads=1)
            while len(self._open) >= _OPEN_VIDEOS:
                self._open.popitem(last=False)[1].close()
        self._open[video] = source
        return source

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": OrderedDict()}
