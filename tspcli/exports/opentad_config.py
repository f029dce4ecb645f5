"""OpenTAD's configurations for our features: what they inherit, and what must differ.

A written configuration is a base of OpenTAD's own (``_base_``) with the paths, the times and the
sizes of the exported rows. Lengths that the base gives in rows of other features become the rows of
as many seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tspcli.annotations.data_sets import Role
from tspcli.sampling import Sampling

Kind = Literal["resize", "pad", "slide"]

_LONG: Mapping[str, str] = {r: r for r in ("training", "validation", "testing")}
_SHORT: Mapping[str, str] = {"training": "train", "validation": "val", "testing": "test"}


@dataclass(frozen=True)
class Base:
    """One of OpenTAD's configurations.

    Attributes:
        config: Its path below ``configs``.
        kind: Whether it resizes every video, pads it, or evaluates in windows.
        window_s: Seconds of its training windows, where it does not resize.
        multiple: What the number of rows of a window must be divisible by.
        words: What the data set's annotations call the subsets.
        is_agnostic: Whether it finds proposals whose classes come from an external classifier.
        least_part: The part of an action that must lie in a training window (``trunc_thresh``).
        is_batched: Whether it pads for evaluation, too, and so takes several videos at a time.
        tious: Thresholds of the evaluation, if not the base's.
    """

    config: str
    kind: Kind
    window_s: float
    multiple: int
    words: Mapping[str, str] = field(default_factory=lambda: _LONG)
    is_agnostic: bool = False
    least_part: float = 0.5
    is_batched: bool = False
    tious: tuple[float, ...] = ()

    def word(self, role: Role | str) -> str:
        """What the data set's annotations call a subset."""
        return self.words.get(role, role)

    def window_rows(self, sampling: Sampling, most_rows: int = 0) -> int:
        """Rows of a window of :attr:`window_s` seconds, rounded up to :attr:`multiple`.

        Args:
            sampling: The sampling of the rows.
            most_rows: Rows of the longest video, which fits too where all videos are padded:
                OpenTAD would shrink it otherwise.
        """
        rows = float(self.window_s / sampling.stride_s)
        least = max(round(rows, 6), most_rows if self.is_batched else 1)
        return math.ceil(least / self.multiple) * self.multiple


_THUMOS = "actionformer/thumos_i3d.py"

BASES: Mapping[str, Base] = {
    "activitynet": Base("actionformer/anet_tsp.py", "resize", 0, 96, is_agnostic=True),
    "fineaction": Base("actionformer/fineaction_videomae_h.py", "resize", 0, 96, is_agnostic=True),
    "thumos14": Base(_THUMOS, "pad", 2304 * 4 / 30, 576),
    "multithumos": Base("actionformer/multithumos_i3d.py", "pad", 2304 * 4 / 30, 576),
    "hacs": Base(
        "actionformer/hacs_slowfast.py", "pad", 960 * 8 / 15, 192, is_agnostic=True, is_batched=True
    ),
    "charades": Base(
        "actionformer/charades_i3d_rgb.py",
        "pad",
        768 * 8 / 24,
        64,
        words={"training": "training", "validation": "testing", "testing": "testing"},
        is_batched=True,
    ),
    "epic-kitchens": Base(
        "actionformer/epic_kitchens_slowfast_verb.py",
        "pad",
        2304 * 16 / 30,
        256,
        words=_SHORT,
        least_part=0.3,
    ),
    "ego4d": Base(
        "actionformer/ego4d_slowfast.py", "slide", 1024 * 16 / 30, 256, words=_SHORT, least_part=0.3
    ),
}
"""By data set. Window lengths are rows, stride and rate of the base's own features; multiples are
the product of its largest pyramid stride and its even attention window."""

EPIC_VERBS = 97
EPIC_NOUNS_CONFIG = "actionformer/epic_kitchens_slowfast_noun.py"

SLIDING_S = 256 * 4 / 30
"""Seconds of a window in its configurations for THUMOS14 that slide, such as BMN's and G-TAD's."""


def base_of(data_set: str, tious: tuple[float, ...]) -> Base:
    """The base for a data set; THUMOS14's, which counts classes, for any without its own."""
    return BASES.get(data_set) or Base(_THUMOS, "pad", 2304 * 4 / 30, 576, tious=tious)


@dataclass(frozen=True)
class Times:
    """A sampling as OpenTAD's loaders take it, in whole frames of a rate.

    Attributes:
        fps: The rate.
        stride: Frames from row to row (``feature_stride``).
        offset: Frames before the centre of the first row (``offset_frames``).
    """

    fps: float
    stride: int
    offset: int

    @classmethod
    def of(cls, sampling: Sampling) -> Times:
        """The times of a sampling; a centre between two frames is counted in half frames."""
        halves = sampling.center_offset.denominator
        return cls(
            float(sampling.frame_rate) * halves,
            sampling.stride * halves,
            int(sampling.center_offset * halves),
        )

    def line(self) -> str:
        """The loader's arguments."""
        return (
            f"feature_stride={self.stride}, sample_stride=1, offset_frames={self.offset}, "
            f"fps={self.fps:.10g}"
        )


@dataclass(frozen=True)
class Written:
    """What an export wrote for a configuration to name.

    Attributes:
        annotations: The annotation file.
        class_map: The list of classes.
        features: The folder of the features.
        missing: The list of videos without features.
        prefix: What the features' names have before the IDs.
        suffix: What they have after them.
        width: The width of a row.
        n_classes: The number of annotated classes; None if it is unknown.
        max_rows: Rows of the longest video.
        title: The data set's name.
    """

    annotations: str
    class_map: str
    features: str
    missing: str
    prefix: str
    suffix: str
    width: int
    n_classes: int | None
    max_rows: int
    title: str


def configuration(base: Base, written: Written, times: Times | None, rows: int) -> str:
    """A configuration that inherits one of OpenTAD's.

    Args:
        base: What it inherits.
        written: What the export wrote.
        times: The times of the rows, where the base does not resize.
        rows: Rows of a window, or to which videos are resized.
    """
    load = f'type="LoadFeats", feat_format="npy", prefix={written.prefix!r}'
    load += f", suffix={written.suffix!r}" if written.suffix else ""
    config = base.config
    if config == BASES["epic-kitchens"].config and (written.n_classes or 0) > EPIC_VERBS:
        config = EPIC_NOUNS_CONFIG
    lines = [
        f"# {written.title}. Inherits OpenTAD's own configuration: set OPENTAD to the checkout, or",
        "# copy this file to configs/tsp/ in it.",
        f'_base_ = ["{{{{$OPENTAD:../..}}}}/configs/{config}"]',
        "",
        f"annotation_path = {written.annotations!r}",
        f"class_map = {written.class_map!r}",
        f"data_path = {written.features!r}",
        f"block_list = {written.missing!r}",
        "",
        f"load = [dict({load})]",
        'truth = [dict(type="ConvertToTensor", keys=["feats", "gt_segments", "gt_labels"])]',
        'no_truth = [dict(type="ConvertToTensor", keys=["feats"])]',
        'channels_first = [dict(type="Rearrange", keys=["feats"], ops="t c -> c t")]',
        'labelled = [dict(type="Collect", inputs="feats", keys=["masks", "gt_segments", '
        '"gt_labels"])]',
        'bare = [dict(type="Collect", inputs="feats", keys=["masks"])]',
        f'crop = [dict(type="RandomTrunc", trunc_len={rows}, trunc_thresh={base.least_part}, '
        "crop_ratio=[0.9, 1.0])]",
        f"whole = [{_evaluated(base, rows)}]",
        "",
        *_dataset(base, times, rows),
        "",
        "model = dict(",
        f"    projection=dict(in_channels={written.width}, max_seq_len={rows}),",
        *_head(base, written),
        ")",
        "evaluation = dict(",
        f"    subset={base.word('validation')!r},",
        "    ground_truth_filename=annotation_path,",
    ]
    if base.tious:
        lines.append(f"    tiou_thresholds={[round(t, 4) for t in base.tious]},")
    work = written.title.lower().replace(" ", "_")
    return "\n".join([*lines, ")", f'work_dir = "exps/tsp/{work}"', ""])


def _head(base: Base, written: Written) -> list[str]:
    if base.is_agnostic:
        return []  # one class in the base; the classes come from its external classifier
    n_classes = "None" if written.n_classes is None else written.n_classes
    return [f"    rpn_head=dict(num_classes={n_classes}),"]


def _evaluated(base: Base, rows: int) -> str:
    """The step between reading a whole video and the model."""
    if base.kind == "resize":
        return 'dict(type="ResizeFeat", tool="torchvision_align")'
    if base.kind == "slide":
        return 'dict(type="SlidingWindowTrunc", with_mask=True)'
    return f'dict(type="Padding", length={rows})' if base.is_batched else ""


def _dataset(base: Base, times: Times | None, rows: int) -> list[str]:
    # Of OpenTAD's loaders only ActivityNet's keep the fractions of labels, so they serve all.
    shared = ["ann_file=annotation_path, class_map=class_map, data_path=data_path,"]
    shared.append("block_list=block_list,")
    if times is None:
        shared.append(f"resize_length={rows},")
    else:
        shared.append(f"{times.line()},")
    slides = [f"window_size={rows},"] if base.kind == "slide" else []
    loaders = {"resize": ("AnetResizeDataset",) * 2, "pad": ("AnetPaddingDataset",) * 2}
    train, whole = loaders.get(base.kind, ("AnetPaddingDataset", "AnetSlidingDataset"))
    first = "*load, *truth, *whole, *crop" if base.kind == "resize" else "*load, *truth, *crop"
    parts: tuple[tuple[str, str, Role, str, list[str], str], ...] = (
        ("train", train, "training", "True", [], f"{first}, *channels_first, *labelled"),
        ("val", whole, "validation", "True", slides, "*load, *truth, *whole, *channels_first, "
         "*labelled"),
        ("test", whole, "validation", "False", [*slides, "test_mode=True,"],
         "*load, *no_truth, *whole, *channels_first, *bare"),
    )  # fmt: skip
    lines = ["dataset = dict("]
    for name, loader, role, filters, more, pipeline in parts:
        lines += [
            f"    {name}=dict(",
            f'        type="{loader}",',
            f"        subset_name={base.word(role)!r},",
            *(f"        {line}" for line in [*shared, *more]),
            f"        filter_gt={filters},",
            f"        class_agnostic={base.is_agnostic},",
            f"        pipeline=[{pipeline}],",
            "    ),",
        ]
    return [*lines, ")"]
