"""How a frame is scaled, cropped and normalised between the decoder and the encoder.

Preprocessing belongs to the weights. Every step handles one frame at a time and runs once per
frame, however many clips share it. A decode worker scales and crops
(:meth:`Preprocessing.frame_spec`), the encoder's device scales to 0..1 and normalises
(:meth:`Preprocessing.normalize`). Cropping and normalising commute, so the order of TSP's official
code (normalise, then crop) gives the same values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tspcli.errors import UsageError
from tspcli.sampling.pixels import FrameDtype, FrameSpec, ResizeSpec

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """Scale, centre crop, and per-channel normalisation of RGB values in 0..1.

    The defaults are TSP's and those of torchvision's video ResNets: 128 x 171 pixels regardless of
    the aspect ratio, 112 x 112 from the centre, mean and standard deviation of Kinetics-400.

    Attributes:
        resize: Size before cropping.
        crop: (height, width) of the crop.
        mean: Per channel, subtracted from values in 0..1.
        std: Per channel, divided by afterwards. A mean and std of 0.5 give the range -1..1.
    """

    resize: ResizeSpec = field(default_factory=lambda: ResizeSpec(height=128, width=171))
    crop: tuple[int, int] = (112, 112)
    mean: Triple = (0.43216, 0.394666, 0.37645)
    std: Triple = (0.22803, 0.22145, 0.216989)

    def frame_spec(self, dtype: FrameDtype = "uint8") -> FrameSpec:
        """The scaled and centrally cropped frames that :meth:`normalize` takes."""
        return FrameSpec(resize=self.resize, crop=self.crop, dtype=dtype)

    def training_spec(self) -> FrameSpec:
        """The scaled, uncropped frames that :meth:`augment_clip` takes."""
        return FrameSpec(resize=self.resize, crop=None, dtype="uint8")

    def normalize(self, frames: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Turn pixels into the encoder's input.

        Args:
            frames: (N, h, w, 3), values 0..255, uint8 or floating, on the device that computes.
            dtype: Of the result; the arithmetic is always float32.

        Returns:
            (N, 3, h, w), a view in channels-last memory order.
        """
        if frames.ndim != 4 or frames.shape[-1] != 3:
            raise ValueError(f"frames have shape {tuple(frames.shape)}, expected (N, h, w, 3)")
        mean, std = _constant(self.mean, frames.device), _constant(self.std, frames.device)
        scaled = frames.to(torch.float32, copy=True).div_(255.0).sub_(mean).div_(std)
        return scaled.to(dtype).permute(0, 3, 1, 2)

    def draw(self, height: int, width: int, uniform: tuple[float, float, float]) -> ClipDraw:
        """Turn three random numbers into the flip and crop of one training clip.

        Args:
            height: Of the scaled frames, in pixels.
            width: Likewise.
            uniform: Three independent numbers from [0, 1): flip, row and column of the crop.

        Raises:
            UsageError: If the crop does not fit.
        """
        room_y, room_x = height - self.crop[0], width - self.crop[1]
        if room_y < 0 or room_x < 0:
            raise UsageError(
                f"A crop of {self.crop} does not fit into frames of {height} x {width}.",
                remedy=f"Give frames scaled as {self.resize} says.",
                value=(height, width),
            )
        flip, down, right = uniform
        return ClipDraw(
            flip=flip < 0.5,
            top=min(int(down * (room_y + 1)), room_y),
            left=min(int(right * (room_x + 1)), room_x),
        )

    def augment_clip(self, frames: Tensor, draw: ClipDraw) -> Tensor:
        """The training view of one clip: randomly mirrored and cropped, and normalised.

        Args:
            frames: (T, H, W, 3) scaled frames, values 0..255, such as (16, 128, 171, 3).
            draw: The flip and the crop, the same for all frames of the clip.

        Returns:
            (3, T, h, w) float32.
        """
        height, width = self.crop
        if draw.flip:
            frames = frames.flip(2)
        window = frames[:, draw.top : draw.top + height, draw.left : draw.left + width]
        return self.normalize(window).transpose(0, 1)

    def center_clip(self, frames: Tensor) -> Tensor:
        """The validation view of one clip: cropped around the centre, normalised.

        Args:
            frames: (T, H, W, 3) scaled frames, values 0..255.

        Returns:
            (3, T, h, w) float32.
        """
        top, left = self.frame_spec().crop_origin(frames.shape[1], frames.shape[2])
        return self.augment_clip(frames, ClipDraw(flip=False, top=top, left=left))

    def to_dict(self) -> dict[str, Any]:
        """The preprocessing as plain values."""
        resize = {k: v for k, v in asdict(self.resize).items() if v is not None}
        return {
            "resize": resize,
            "crop": list(self.crop),
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of :meth:`to_dict`."""
        return cls(
            resize=ResizeSpec(**values["resize"]),
            crop=(int(values["crop"][0]), int(values["crop"][1])),
            mean=_triple(values["mean"]),
            std=_triple(values["std"]),
        )


@dataclass(frozen=True)
class ClipDraw:
    """The random choices for one training clip: mirrored or not, and the crop's corner."""

    flip: bool
    top: int
    left: int


@lru_cache
def _constant(values: Triple, device: torch.device) -> Tensor:
    """Three numbers on a device, copied there once: a thread waits for such a copy to a GPU."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=torch.float32, device=device)


def _triple(values: Any) -> Triple:
    red, green, blue = (float(v) for v in values)
    return red, green, blue
