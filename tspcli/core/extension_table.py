"""Tables that the package can be extended by: entries by name, imported when they are used."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

from tspcli.errors import DependencyError


class NamedEntry(Protocol):
    """Anything that a table can hold."""

    @property
    def name(self) -> str:
        """What the user calls it."""


Entry = TypeVar("Entry", bound=NamedEntry)


class Table(dict[str, Entry]):
    """Entries by name: our own, those that a program adds, and those of installed packages.

    A program adds an entry by assigning it, for its own process and the decode processes that it
    starts. A package adds one for every process by an entry point of the table's group that names
    the entry, ``my_decoder = "my_package:ENTRY"``. Entry points are looked up only when a name is
    not known otherwise, or by :meth:`complete`: that takes 50 ms, half of what a help page may.

    Args:
        group: The group of entry points, such as ``tspcli.decoders``.
        entries: Our own.
    """

    def __init__(self, group: str, entries: Iterable[Entry]) -> None:
        super().__init__((entry.name, entry) for entry in entries)
        self.group = group
        self._n_own = len(self)
        self._is_complete = False

    def complete(self) -> Table[Entry]:
        """This table, with the entries of installed packages in it.

        Raises:
            DependencyError: If a package's entry cannot be loaded.
        """
        if not self._is_complete:
            from importlib.metadata import entry_points

            self._is_complete = True
            for point in entry_points(group=self.group):
                try:
                    entry: Entry = point.load()
                    self.setdefault(entry.name, entry)
                except Exception as error:  # whatever the package of others raises
                    package = point.dist.name if point.dist is not None else point.value
                    raise DependencyError(
                        f"{package} adds {point.name!r} ({point.value}) to {self.group}, which "
                        f"cannot be loaded: {type(error).__name__}: {error}.",
                        remedy="Repair or uninstall that package.",
                        value=point.value,
                    ) from error
        return self

    def added_first(self) -> list[Entry]:
        """All entries, those of programs and installed packages before our own."""
        entries = list(self.complete().values())
        return entries[self._n_own :] + entries[: self._n_own]

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or dict.__contains__(self.complete(), name)

    def __missing__(self, name: str) -> Entry:
        if name not in self:
            raise KeyError(name)
        return self[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The entry of a name, or ``default``."""
        return self[name] if name in self else default  # noqa: SIM401 (it would call itself)
