"""Figures of the paper, for reports that compare; shares of 1."""

from __future__ import annotations

PUBLISHED_NOTE = (
    "Published: TSP, Alwassel et al., ICCVW 2021, r2plus1d_34 on ActivityNet v1.3 validation; mAP "
    "with G-TAD, proposals with BMN. Taken from publication listings, not re-measured."
)
PUBLISHED_ACTIVITYNET = {
    "map_0.50": 0.5126,
    "map_0.75": 0.3712,
    "map_0.95": 0.0929,
    "map": 0.3581,
    "ar_100": 0.7663,
    "auc": 0.6904,
}
