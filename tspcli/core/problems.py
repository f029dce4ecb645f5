"""Several errors at once, so that one run shows all that has to be mended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tspcli.errors import TspError


class Problems:
    """Errors of parts that do not build on each other.

    Args:
        kind: Of the error that stands for several.

    >>> problems = Problems(TspError)
    >>> with problems.noted():
    ...     raise TspError("A is missing.", remedy="Make it.")
    >>> with problems.noted():
    ...     raise TspError("B is damaged.")
    >>> problems.require_none()
    Traceback (most recent call last):
    tspcli.errors.TspError: 2 problems:
    1. A is missing. Make it.
    2. B is damaged.
    """

    def __init__(self, kind: type[TspError]) -> None:
        self._kind = kind
        self._found: list[TspError] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note an error that is raised while the context is open."""
        try:
            yield
        except TspError as error:
            inner = error.data.get("problems")
            for one in inner if isinstance(inner, list) else [error]:
                if str(one) not in map(str, self._found):
                    self._found.append(one)

    def require_none(self) -> None:
        """Raise what was noted: one error as it is, several as one.

        Raises:
            TspError: With ``problems`` in its data if it stands for several.
        """
        if not self._found:
            return
        first = self._found[0]
        if len(self._found) == 1:
            raise first
        lines = [f"{number}. {error}" for number, error in enumerate(self._found, 1)]
        found = self._kind("\n".join([f"{len(lines)} problems:", *lines]), problems=self._found)
        found.exit_code = first.exit_code
        raise found from first
