"""An experiment that is small enough for tests."""

from __future__ import annotations

from dataclasses import replace

from reproduction.dataset import DatasetSpec
from reproduction.scales import TAC_MATCHED, TINY, TSP_NONE, Scale

MINIATURE: Scale = replace(
    TINY,
    name="miniature",
    jobs=2,
    seeds=(3,),
    data=DatasetSpec(
        n_train=6,
        n_valid=3,
        n_unseen=2,
        n_trimmed_train=6,
        n_trimmed_valid=6,
        duration_s=(13.0, 14.0),
        action_s=(2.5, 3.0),
        gap_s=(3.0, 3.5),
        trimmed_s=2.2,
        height=36,
        width=48,
    ),
    resize=(20, 26),
    crop=(16, 16),
    trimmed={**TINY.trimmed, "epochs": 2, "milestones": "1", "clips_per_segment": 1},
    untrimmed={**TINY.untrimmed, "epochs": 2, "milestones": "1", "clips_per_segment": 1},
    bmn={"temporal_scale": 16, "max_duration": 8, "channels": 8, "epochs": 2},
    arms=(TAC_MATCHED, TSP_NONE),
)
