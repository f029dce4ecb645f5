"""Errors come out of another process as they went in."""

from __future__ import annotations

import pickle

import pytest

from tspcli.errors import StoreError, TspError, UsageError, VideoError


@pytest.mark.parametrize(
    "error",
    [
        VideoError("damaged", "half of it", path="a.mp4", remedy="Copy it again."),
        StoreError("The disk is full.", remedy="Free some space."),
        UsageError("Nonsense."),
    ],
)
def test_an_error_survives_pickling(error: TspError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.__dict__) == (str(error), error.__dict__)
