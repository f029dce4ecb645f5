"""Package faces whose names are imported when they are used."""

from __future__ import annotations

from collections.abc import Callable, Mapping


def lazy_face(
    package: str, modules: Mapping[str, str], *others: str
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """A package's ``__getattr__`` and ``__dir__``, so that importing it imports nothing heavy.

    Args:
        package: Its name.
        modules: Public name to the module below the package that defines it. No name may be that
            of a module of the package: importing that would hide it.
        others: Public names that the face itself defines.
    """

    def get(name: str) -> object:
        if name in modules:
            from importlib import import_module

            return getattr(import_module(f"{package}.{modules[name]}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get, lambda: sorted((*modules, *others))
