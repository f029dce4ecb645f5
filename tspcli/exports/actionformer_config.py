"""ActionFormer's configurations for our features: its own settings, with the sizes of the rows.

ActionFormer's files do not inherit, so a written one has every setting of the authors' file for
the same data set, or for a data set without one, those for THUMOS14. Lengths that theirs give in
rows of other features become the rows of as many seconds.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tspcli.sampling import Sampling

LENGTH = 192
"""``max_seq_len`` of its ActivityNet configuration."""

Section = Mapping[str, Any]
_SPLITS: Mapping[str, str] = {r: r for r in ("training", "validation", "testing")}

_MODEL: Section = {"fpn_type": "identity", "max_buffer_len_factor": 6.0, "n_mha_win_size": 19}
_OPT: Section = {"learning_rate": 0.0001, "epochs": 30, "weight_decay": 0.05}
_TRAIN: Section = {
    "init_loss_norm": 100,
    "clip_grad_l2norm": 1.0,
    "cls_prior_prob": 0.01,
    "center_sample": "radius",
    "center_sample_radius": 1.5,
}
_TEST: Section = {
    "voting_thresh": 0.7,
    "pre_nms_topk": 2000,
    "max_seg_num": 200,
    "min_score": 0.001,
    "multiclass_nms": True,
}


@dataclass(frozen=True)
class Form:
    """A configuration of ActionFormer's authors, or one after THUMOS14's.

    Attributes:
        loader: The loader (``dataset_name``), which also decides on the thresholds of evaluation.
        tious: Those thresholds: first, last.
        window_s: Seconds of a training window; 0 where videos are resized.
        multiple: What the number of rows of a window must be divisible by.
        words: What the annotations call the subsets.
        extension: Of the feature files.
        least_part: The part of an action that must lie in a training window.
        n_classes: The classes of the data set, for annotations of one's own; None if unknown.
        batch: Videos per training step.
        model, opt, train, test: Sections of the file.
    """

    loader: str
    tious: tuple[float, float]
    window_s: float
    multiple: int
    words: Mapping[str, str] = field(default_factory=lambda: _SPLITS)
    extension: str = ".npy"
    least_part: float = 0.5
    n_classes: int | None = None
    batch: int = 2
    model: Section = field(default_factory=lambda: _MODEL)
    opt: Section = field(default_factory=lambda: _OPT)
    train: Section = field(default_factory=lambda: _TRAIN)
    test: Section = field(default_factory=lambda: _TEST)

    @property
    def resizes(self) -> bool:
        """Whether every video becomes :data:`LENGTH` rows, and only proposals are found."""
        return not self.window_s

    def window_rows(self, sampling: Sampling) -> int:
        """Rows of a training window (``max_seq_len``)."""
        rows = round(float(self.window_s / sampling.stride_s), 6)
        return math.ceil(rows / self.multiple) * self.multiple


_THUMOS_S = 2304 * 4 / 30
_STRICT, _MIDDLE, _EGOCENTRIC = (0.5, 0.95), (0.3, 0.7), (0.1, 0.5)

ANET = Form(
    "anet",
    _STRICT,
    0,
    96,
    n_classes=1,
    batch=16,
    model={
        "fpn_type": "identity",
        "max_buffer_len_factor": 1.0,
        "n_mha_win_size": [7, 7, 7, 7, 7, -1],
        "n_head": 4,
        "embd_dim": 256,
        "fpn_dim": 256,
        "head_dim": 256,
        "use_abs_pe": True,
    },
    opt={"learning_rate": 0.001, "epochs": 10, "weight_decay": 0.05},
    train={
        **_TRAIN,
        "init_loss_norm": 200,
        "label_smoothing": 0.1,
        "droppath": 0.1,
        "loss_weight": 2.0,
    },
    test={
        "voting_thresh": 0.9,
        "pre_nms_topk": 2000,
        "max_seg_num": 100,
        "min_score": 0.001,
        "multiclass_nms": False,
        "nms_sigma": 0.75,
        "ext_score_file": "./data/anet_1.3/annotations/cuhk_val_simp_share.json",
        "duration_thresh": 0.001,
    },
)
THUMOS = Form(
    "thumos",
    _MIDDLE,
    _THUMOS_S,
    576,
    words={"training": "Validation", "validation": "Test", "testing": "Test"},
    n_classes=20,
)
EPIC = Form(
    "epic",
    _EGOCENTRIC,
    2304 * 16 / 30,
    256,
    extension=".npz",
    least_part=0.3,
    n_classes=97,
    model={
        "regression_range": [[0, 4], [2, 8], [4, 16], [8, 32], [16, 64], [32, 10000]],
        "fpn_type": "identity",
        "max_buffer_len_factor": 4.0,
        "n_mha_win_size": 9,
    },
    opt={**_OPT, "epochs": 16},
    train={**_TRAIN, "init_loss_norm": 250},
    test={
        "pre_nms_topk": 5000,
        "max_seg_num": 2000,
        "min_score": 0.001,
        "nms_sigma": 0.4,
        "multiclass_nms": True,
    },
)
EGO4D = Form(
    "ego4d",
    _EGOCENTRIC,
    1024 * 16 / 30,
    512,
    least_part=0.3,
    n_classes=110,
    model={
        "regression_range": [[0, 4], [2, 8], [4, 16], [8, 32], [16, 64], [32, 128], [64, 10000]],
        "fpn_type": "identity",
        "backbone_arch": [2, 2, 6],
        "max_buffer_len_factor": 4.0,
        "n_mha_win_size": 9,
        "use_abs_pe": True,
    },
    opt={**_OPT, "epochs": 10},
    train={**_TRAIN, "dropout": 0.1, "droppath": 0.1},
    test={
        "pre_nms_topk": 5000,
        "max_seg_num": 2000,
        "min_score": 0.001,
        "nms_sigma": 0.9,
        "multiclass_nms": True,
        "voting_thresh": 0.95,
    },
)
OTHERS = Form("anet", _STRICT, _THUMOS_S, 576)
"""Any data set that its authors have no configuration for: the settings for THUMOS14 with the
loader for ActivityNet, which evaluates at 0.5 to 0.95, stops where a file is missing, and keeps the
rows' stride where it need not resize."""

FORMS: Mapping[str, Form] = {
    "activitynet": ANET,
    "thumos14": THUMOS,
    "multithumos": Form("thumos", _MIDDLE, _THUMOS_S, 576, words=THUMOS.words),
    "charades": Form("thumos", _MIDDLE, 768 * 8 / 24, 576),
    "hacs": Form("anet", _STRICT, 960 * 8 / 15, 576),
    "epic-kitchens": EPIC,
    "ego4d": EGO4D,
}
"""By data set. Window lengths are rows, stride and rate of the authors' own features; multiples are
the product of the largest pyramid stride and the even attention window."""


def form_of(data_set: str) -> Form:
    """The form for a data set."""
    return FORMS.get(data_set, OTHERS)


def configuration(form: Form, dataset: Mapping[str, Any], max_rows: int) -> str:
    """The text of a configuration.

    Args:
        form: Its form.
        dataset: The section ``dataset``.
        max_rows: Rows of the longest video; the model's points must reach as far.
    """
    window = int(dataset["max_seq_len"])
    model = dict(form.model)
    least = math.ceil(max_rows / window) if not form.resizes else 1
    # One window more, because inputs are padded to a multiple.
    if least + 1 > model["max_buffer_len_factor"] and not form.resizes:
        model["max_buffer_len_factor"] = float(least + 1)
    top: dict[str, Any] = {
        "dataset_name": form.loader,
        "train_split": [form.words["training"].lower()],
        "val_split": [form.words["validation"].lower()],
    }
    sections = {
        "dataset": dataset,
        "model": model,
        "opt": form.opt,
        "loader": {"batch_size": form.batch},
        "train_cfg": form.train,
        "test_cfg": form.test,
    }
    lines = [f"{name}: {_yaml(value)}" for name, value in top.items()]
    for name, section in sections.items():
        inner = "".join(f"  {key}: {_yaml(value)},\n" for key, value in section.items())
        lines.append(f"{name}: {{\n{inner}}}")
    return "\n".join([*lines, "output_folder: ./ckpt/", ""])


def _yaml(value: object) -> str:
    """A value in YAML's flow style; text is quoted where it could mean something else."""
    if value is None:
        return "~"
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    if not isinstance(value, str):
        return str(value)
    return value if re.fullmatch(r"[\w./-]*[a-zA-Z_/][\w./-]*", value) else json.dumps(value)
