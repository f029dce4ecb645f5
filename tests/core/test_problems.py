"""Several errors are reported at once."""

from __future__ import annotations

import pickle

import pytest

from tspcli.core.problems import Problems
from tspcli.errors import AnnotationError, TrainingError, UsageError


def test_one_error_is_raised_as_it_is() -> None:
    problems = Problems(TrainingError)
    with problems.noted():
        pass
    problems.require_none()
    for _ in range(2):
        with problems.noted():
            raise AnnotationError("no table", path="a.csv")
    with pytest.raises(AnnotationError) as caught:
        problems.require_none()
    assert caught.value.data == {"path": "a.csv"}


def test_several_become_one_that_names_all() -> None:
    inner, outer = Problems(TrainingError), Problems(TrainingError)
    errors = [UsageError("one", remedy="Mend it."), AnnotationError("two"), TrainingError("three")]
    with outer.noted():
        raise errors[0]
    for error in errors[1:]:
        with inner.noted():
            raise error
    with outer.noted():
        inner.require_none()
    with pytest.raises(TrainingError) as caught:
        outer.require_none()
    assert caught.value.data["problems"] == errors
    assert caught.value.exit_code == UsageError.exit_code
    assert [line[:1] for line in str(caught.value).splitlines()] == ["3", "1", "2", "3"]
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value) and copy.exit_code == caught.value.exit_code


def test_a_fault_of_ours_is_not_noted() -> None:
    with pytest.raises(ZeroDivisionError), Problems(TrainingError).noted():
        _ = 1 / 0
