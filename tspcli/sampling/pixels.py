"""The size of the frames that clips are made of: how they are scaled and cropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tspcli.errors import UsageError

FrameDtype = Literal["uint8", "float32"]


@dataclass(frozen=True)
class ResizeSpec:
    """The size to which a frame is scaled before it is cropped.

    Either ``height`` and ``width`` (aspect ratio not kept: 128 x 171 in TSP), or ``short_side``,
    the other side following the aspect ratio, rounded down. The filter is always bilinear on pixel
    centres without antialiasing, that of ``torch.nn.functional.interpolate(align_corners=False)``.
    """

    height: int | None = None
    width: int | None = None
    short_side: int | None = None

    def __post_init__(self) -> None:
        exact = self.height is not None and self.width is not None and self.short_side is None
        by_side = self.height is None and self.width is None and self.short_side is not None
        if not (exact or by_side):
            raise UsageError(f"{self} is not a size: give height and width, or short_side alone.")

    def target(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) to which a frame of ``height`` x ``width`` is scaled."""
        if self.short_side is None:
            assert self.height is not None and self.width is not None
            return self.height, self.width
        if height <= width:
            return self.short_side, int(self.short_side * width / height)
        return int(self.short_side * height / width), self.short_side

    def line(self) -> str:
        """The size in a word or two.

        >>> ResizeSpec(128, 171).line(), ResizeSpec(short_side=256).line()
        ('128×171', '256 on the short side')
        """
        if self.short_side is not None:
            return f"{self.short_side} on the short side"
        return f"{self.height}×{self.width}"


@dataclass(frozen=True)
class FrameSpec:
    """The frames that a decode worker ships: scaled, then cropped around the centre.

    Attributes:
        resize: The size before the crop.
        crop: (height, width) of the centre crop, or None for the complete scaled frame.
        dtype: ``uint8`` rounds the scaled pixels to whole values of 0..255; ``float32`` keeps them
            as the filter gives them, in the same range.
    """

    resize: ResizeSpec
    crop: tuple[int, int] | None = None
    dtype: FrameDtype = "uint8"

    def line(self) -> str:
        """The frames in one line.

        >>> FrameSpec(ResizeSpec(128, 171), (112, 112)).line()
        'frames 128×171 → 112×112'
        """
        crop = "" if self.crop is None else f" → {self.crop[0]}×{self.crop[1]}"
        return f"frames {self.resize.line()}{crop}"

    def crop_origin(self, height: int, width: int) -> tuple[int, int]:
        """(top, left) of the centre crop in a scaled frame; halves are rounded to even."""
        if self.crop is None:
            return 0, 0
        return round((height - self.crop[0]) / 2), round((width - self.crop[1]) / 2)

    def output_shape(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of what is shipped for a source frame of ``height`` x ``width``.

        Raises:
            UsageError: If the scaled frame is smaller than the crop.
        """
        scaled = self.resize.target(height, width)
        if self.crop is None:
            return scaled
        if scaled[0] < self.crop[0] or scaled[1] < self.crop[1]:
            raise UsageError(
                f"A crop of {self.crop} does not fit into a frame scaled to {scaled}.",
                remedy="Give a smaller crop or a larger size.",
            )
        return self.crop
