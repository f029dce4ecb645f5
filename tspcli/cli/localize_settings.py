"""What the options of ``tsp localize`` mean to its library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tspcli.localization.settings import TrainConfig
    from tspcli.timeline import Sampling


def train_config(options: Mapping[str, Any]) -> TrainConfig:
    """The settings of a training; what was not given keeps its default."""
    from tspcli.localization.settings import BmnConfig, ClassConfig, TrainConfig

    given = {name: value for name, value in options.items() if value is not None}
    model: dict[str, int] = {
        k: given.pop(k) for k in ("temporal_scale", "max_duration") if k in given
    }
    channels = given.pop("channels", None)
    if channels is not None:
        model.update(BmnConfig.widths(channels))
    classes = {"source": given.pop("classes")} if "classes" in given else {}
    return TrainConfig(model=BmnConfig(**model), classes=ClassConfig(**classes), **given)


def row_times(options: dict[str, Any]) -> dict[str, Any]:
    """Take what was given of the rows' times out of the options."""
    from tspcli.timeline import as_rate

    given = {k: options.pop(k) for k in ("stride", "frame_rate", "clip_length")}
    given = {name: value for name, value in given.items() if value is not None}
    if "frame_rate" in given:
        given["frame_rate"] = as_rate(given["frame_rate"], "frame rate")
    return given


def row_sampling(times: Mapping[str, Any]) -> Sampling | None:
    """Where rows lie in time, for stores that do not tell; None if nothing was given."""
    from tspcli.timeline import Sampling

    return Sampling(**times) if times else None
