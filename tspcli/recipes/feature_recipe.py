"""Recipes of published features: which frames, pixels and weights make their rows.

A recipe is data, ``features/NAME.toml``, with these fields: ``summary``; ``standing``; ``source``,
where the original program or its description is; ``unknown``, what nobody has stated;
``weights`` and ``backbone``; ``[sampling]`` and ``[preprocessing]`` as in a store's settings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tspcli.core.run_dir import differences
from tspcli.core.text import canonical_json
from tspcli.errors import UsageError
from tspcli.recipes.catalog import read_recipe, recipe_names, recipe_summary
from tspcli.sampling import Sampling

KIND = "features"

STANDINGS = {
    "exact": "the original program is public and was compared with",
    "stated": "stated by its author, not compared with a program",
    "inferred": "inferred from what is published; see what is unknown",
}
"""How sure it is that a recipe makes the published features."""

_TEXTS = ("standing", "weights", "backbone")
_LISTS = ("source", "unknown")
_TABLES = ("sampling", "preprocessing")
_MADE_OF = ("backbone", "sampling", "preprocessing")


@dataclass(frozen=True)
class FeatureRecipe:
    """How some published features were made.

    Attributes:
        name: Its name.
        summary: One line about it.
        standing: A name in :data:`STANDINGS`.
        source: Where the original program or its description is.
        unknown: What nobody has stated.
        weights: Name of the weights in the registry.
        backbone: Name of the backbone.
        sampling: How videos are cut into clips.
        preprocessing: How frames are scaled, cropped and normalised, as plain values.
    """

    name: str
    summary: str
    standing: str
    source: tuple[str, ...]
    unknown: tuple[str, ...]
    weights: str
    backbone: str
    sampling: Sampling
    preprocessing: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain values."""
        values = {**vars(self), "sampling": self.sampling.to_dict(), "digest": self.digest}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @property
    def digest(self) -> str:
        """sha256 of what changes a row: weights, backbone, sampling and preprocessing."""
        made_of = {**self._settings(), "weights": self.weights}
        return hashlib.sha256(canonical_json(made_of).encode()).hexdigest()

    def deviations(self, settings: Mapping[str, Any], weights: str | None) -> list[str]:
        """In what rows were made otherwise, each as ``name: the recipe's, not theirs``.

        Args:
            settings: Those of a store.
            weights: Name of its weights.
        """
        theirs = {name: settings.get(name) for name in _MADE_OF} | {"weights": weights}
        found = differences({**self._settings(), "weights": self.weights}, theirs)
        return [f"{name}: {text}" for name, text in found.items()]

    def _settings(self) -> dict[str, Any]:
        return {
            "backbone": self.backbone,
            "sampling": self.sampling.to_dict(),
            "preprocessing": dict(self.preprocessing),
        }


def feature_recipe(recipe: str | Path) -> FeatureRecipe:
    """A recipe by its name, or of a TOML file.

    Raises:
        UsageError: If there is none of that name, or a field is missing, unknown or wrong.
    """
    values = read_recipe(KIND, recipe)
    name = values.pop("name")
    kinds = {**dict.fromkeys(_TEXTS, str), **dict.fromkeys(_LISTS, list)}
    kinds |= dict.fromkeys(_TABLES, dict)
    for field in sorted({*kinds, *values}):
        if field not in kinds or not isinstance(values.get(field), kinds[field]):
            expected = f"no {kinds[field].__name__}" if field in kinds else "no field of a recipe"
            raise UsageError(
                f"{recipe}: {field} = {values.get(field)!r} is {expected}.",
                path=recipe,
                option=field,
                value=values.get(field),
            )
    if values["standing"] not in STANDINGS:
        raise UsageError(
            f"{recipe}: the standing {values['standing']!r} is not one of {', '.join(STANDINGS)}.",
            path=recipe,
            option="standing",
            value=values["standing"],
        )
    try:
        sampling = Sampling.from_dict(values["sampling"])
    except KeyError as error:
        raise UsageError(
            f"{recipe}: the sampling has no {error}.", path=recipe, option="sampling"
        ) from error
    return FeatureRecipe(
        name=name,
        summary=recipe_summary(KIND, str(recipe)),
        standing=values["standing"],
        source=tuple(values["source"]),
        unknown=tuple(values["unknown"]),
        weights=values["weights"],
        backbone=values["backbone"],
        sampling=sampling,
        preprocessing=values["preprocessing"],
    )


def feature_recipes() -> list[FeatureRecipe]:
    """All recipes that come with the program."""
    return [feature_recipe(name) for name in recipe_names(KIND)]
