"""Recipes are data: one TOML file each, found by its name in a folder of this package.

A kind of recipe is a folder (``training``); what its fields mean and which values they take is the
business of whoever reads that kind. Two tables are of every kind:

* ``base = "NAME"`` in a user's file takes the values of another recipe, which the file then
  replaces;
* ``[[variant]]`` with ``if = {…}`` and ``set = {…}`` changes some values where others are chosen.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
) -> dict[str, Any]:
    """The values of a recipe, ``name`` among them.

    Args:
        kind: Of the recipe.
        recipe: A name of :func:`recipe_names`, or a TOML file.
        overrides: Values that replace those of the recipe and of its base. Variants apply where
            their condition holds for the replaced values, but never over them.
        ignored: Fields of a file that are no values of a recipe.

    Raises:
        UsageError: If there is no such recipe, or it is not TOML.
    """
    ignored = {*ignored, "summary"}
    content = _content(kind, recipe, ignored)
    fixed: dict[str, Any] = {}
    base = content.pop("base", None)
    if base is not None:
        fixed = {key: value for key, value in content.items() if key != "variant"}
        content = {**_content(kind, str(base), ignored), "name": str(base)}
    fixed |= overrides or {}
    variants = content.pop("variant", [])
    values = {"name": Path(recipe).stem, **content, **fixed}
    for variant in variants if isinstance(variants, list) else [variants]:
        condition, change = _parts(variant, recipe)
        if all(values.get(key) == value for key, value in condition.items()):
            values = {**values, **change, **fixed}
    return values


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
