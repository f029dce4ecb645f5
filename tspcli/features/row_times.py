"""Where rows lie in time, as the user says it of files that do not say it themselves."""

from __future__ import annotations

from collections.abc import Sequence

from tspcli.errors import UsageError
from tspcli.features.store import FeatureStore
from tspcli.timeline import Sampling, as_rate

RELEASED = (
    "The features released with TSP have --frame-rate 15 --clip-length 16, and --stride 16 "
    "(ActivityNet) or --stride 1 (THUMOS14)."
)


def given_sampling(
    frame_rate: str | None, stride: int | None, clip_length: int | None
) -> Sampling | None:
    """The sampling that the command line tells, for files that do not tell it themselves.

    Args:
        frame_rate: Samples a second inside a clip.
        stride: Samples from one clip's start to the next's.
        clip_length: Samples a clip.

    Returns:
        The sampling; None if nothing is given.

    Raises:
        UsageError: If only a part of it is given.
    """
    given = {"--frame-rate": frame_rate, "--stride": stride, "--clip-length": clip_length}
    if all(value is None for value in given.values()):
        return None
    absent = [name for name, value in given.items() if value is None]
    if absent:
        raise UsageError(
            f"{' and '.join(absent)} missing: the three belong together.", remedy=RELEASED
        )

    assert frame_rate is not None and stride is not None and clip_length is not None
    rate = as_rate(frame_rate, "frame rate")
    return Sampling(rate, clip_length, stride, grid_rate=max(rate, as_rate(30)))


def require_agreement(store: FeatureStore, given: Sampling | None) -> None:
    """Refuse a sampling that is not the one that a store tells itself.

    Raises:
        UsageError: With both.
    """
    own = None if given is None else store.own_sampling
    if own is not None and given is not None and _rhythm(own) != _rhythm(given):
        raise UsageError(
            f"{store.path} says frame rate {own.frame_rate}, stride {own.stride}, clip length "
            f"{own.clip_length}; the command says {given.frame_rate}, {given.stride}, "
            f"{given.clip_length}.",
            remedy="Leave --frame-rate, --stride and --clip-length away: the store knows.",
        )


def require_agreement_or_use(stores: Sequence[FeatureStore], given: Sampling | None) -> None:
    """:func:`require_agreement` for stores of which each may have a sampling of its own.

    Where one of them does not tell its own, the given one is that store's, and says nothing of the
    others.

    Raises:
        UsageError: With both, if every store tells its own and one is not the given one.
    """
    if given is not None and all(store.own_sampling is not None for store in stores):
        for store in stores:
            require_agreement(store, given)


def _rhythm(sampling: Sampling) -> tuple[object, ...]:
    # Datasets alone hold their rate as a floating-point number.
    return float(sampling.frame_rate), sampling.stride, sampling.clip_length
