"""Recipes are data: one TOML file each, found by its name in a folder of this package.

A kind of recipe is a folder (``training``); what its fields mean and which values they take is the
business of whoever reads that kind. Two tables are of every kind:

* ``base = "NAME"`` takes the values of another recipe or file, which has perhaps a base of its own,
  and replaces some of them;
* ``[[variant]]`` with ``if = {…}`` and ``set = {…}`` changes some values where others are chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from tspcli.core.settings import parse_toml, read_toml_text
from tspcli.errors import UsageError


def recipe_names(kind: str) -> list[str]:
    """Names of the recipes of a kind that come with the program."""
    return sorted(file.name[: -len(".toml")] for file in _folder(kind) if ".toml" in file.name)


def recipe_summary(kind: str, name: str) -> str:
    """One line about a recipe."""
    return str(_content(kind, name).get("summary", ""))


def read_recipe(
    kind: str,
    recipe: str | Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    ignored: Collection[str] = (),
    implied: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda chosen: {},
) -> dict[str, Any]:
    """The values of a recipe, ``name`` among them.

    Args:
        kind: Of the recipe.
        recipe: A name of :func:`recipe_names`, or a TOML file.
        overrides: Values that replace those of the recipe and of its bases. Variants apply where
            their condition holds for the replaced values, but never over them.
        ignored: Fields of a file that are no values of a recipe.
        implied: What follows from the values that the user's files and ``overrides`` choose; it
            replaces values of our recipes alone.

    Raises:
        UsageError: If there is no such recipe, or it is not TOML, or it is its own base.
    """
    layers, n_ours = _layers(kind, recipe, {*ignored, "summary"})
    variants = [layer.pop("variant", []) for layer in layers]
    given = dict(overrides or {})
    told = {**_merged(layers[n_ours:]), **given}
    given |= {key: value for key, value in implied(told).items() if key not in told}
    values = {**_merged(layers), **given}
    for place, named in enumerate(variants):
        # A variant is over its own recipe and its bases, and under whatever is based on it.
        fixed = {**_merged(layers[place + 1 :]), **given}
        for variant in named if isinstance(named, list) else [named]:
            condition, change = _parts(variant, recipe)
            if all(values.get(key) == value for key, value in condition.items()):
                values = {**values, **change, **fixed}
    return {"name": Path(recipe).stem, **values}


def _merged(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {key: value for layer in layers for key, value in layer.items()}


def _layers(
    kind: str, recipe: str | Path, ignored: Collection[str]
) -> tuple[list[dict[str, Any]], int]:
    """The bases of a recipe, the lowest first, and the recipe; how many of these are ours."""
    layers: list[dict[str, Any]] = []
    known, seen = recipe_names(kind), [str(recipe)]
    while True:
        named = seen[-1]
        layers.insert(0, _content(kind, named, ignored))
        if named in known:
            return [{**layers[0], "name": named}, *layers[1:]], 1
        base = layers[0].pop("base", None)
        if base is None:
            return layers, 0
        # A file names another file from its own folder.
        beside = Path(named).parent / str(base)
        seen.append(str(beside if beside.is_file() else base))
        if seen[-1] in seen[:-1]:
            raise UsageError(
                f"The recipe {recipe} is its own base: {' → '.join(seen)}.",
                path=recipe,
                value=seen[-1],
            )


def _parts(variant: Any, recipe: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    parts = (variant.get("if"), variant.get("set")) if isinstance(variant, dict) else ()
    match parts:
        case (dict() as condition, dict() as change):
            return condition, change
    raise UsageError(
        f"{recipe}: a [[variant]] has two tables, `if` and `set`, not {variant!r}.",
        path=recipe,
        value=variant,
    )


def _content(kind: str, recipe: str | Path, ignored: Collection[str] = ()) -> dict[str, Any]:
    """A recipe as its file has it."""
    known = recipe_names(kind)
    if str(recipe) in known:
        [file] = (file for file in _folder(kind) if file.name == f"{recipe}.toml")
        text = file.read_text("utf-8")
    elif Path(recipe).is_file():
        text = read_toml_text(Path(recipe))
    else:
        raise UsageError(
            f"There is no recipe {str(recipe)!r}.",
            remedy=f"Use {', '.join(known)}, or a TOML file.",
            value=str(recipe),
        )
    return {k: v for k, v in parse_toml(text, str(recipe)).items() if k not in ignored}


def _folder(kind: str) -> list[Any]:
    return list(resources.files("tspcli.recipes").joinpath(kind).iterdir())
