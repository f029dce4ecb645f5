"""An error of one type, with the data that programs are promised."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tspcli.errors import TspError


@contextmanager
def refused(kind: type[TspError], /, **data: object) -> Iterator[pytest.ExceptionInfo[TspError]]:
    """Expect an error of exactly this type whose ``data`` holds these values."""
    with pytest.raises(kind) as caught:
        yield caught
    assert type(caught.value) is kind
    found = {name: plain(caught.value.data.get(name)) for name in data}
    assert found == {name: plain(value) for name, value in data.items()}, caught.value


def plain(value: object) -> object:
    """A path as text, everything else as it is."""
    return str(value) if isinstance(value, Path) else value
