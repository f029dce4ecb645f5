"""``tsp recipes``."""

from __future__ import annotations

import click

from tspcli.cli.console import out_console, print_json, print_table
from tspcli.cli.options import json_option


@click.group("recipes", short_help="List and show recipes of published features.")
def command() -> None:
    """List and show recipes of published features: which frames, pixels and weights make them.

    \b
    Example:
      tsp recipes list
      tsp extract --videos my_videos/ --out feats.h5 --recipe tsp-thumos14
    """


@command.command("list")
@json_option("all")
def list_command(as_json: bool) -> None:
    """List the recipes, each with its standing: exact, stated or inferred.

    \b
    Example:
      tsp recipes list
    """
    from rich.markup import escape

    from tspcli.recipes.feature_recipe import feature_recipes

    recipes = feature_recipes()
    if as_json:
        print_json([recipe.to_dict() for recipe in recipes])
        return
    rows = [[escape(r.name), r.standing, escape(r.summary)] for r in recipes]
    titles = ["name", "standing", "features"]
    print_table(titles, rows, texts=titles, console=out_console())


@command.command("show")
@click.argument("name")
@json_option("all")
def show_command(name: str, as_json: bool) -> None:
    """Show a recipe: how sure it is, its source, what is unknown, and what it is made of.

    NAME is one of `tsp recipes list`, or a TOML file.

    \b
    Example:
      tsp recipes show tsp-thumos14
    """
    from rich.markup import escape
    from rich.table import Table

    from tspcli.core.text import canonical_json
    from tspcli.recipes.feature_recipe import STANDINGS, feature_recipe

    recipe = feature_recipe(name)
    if as_json:
        print_json(recipe.to_dict())
        return
    lines = {
        "standing": f"{recipe.standing}: {STANDINGS[recipe.standing]}",
        "unknown": "\n".join(recipe.unknown) or "nothing",
        "source": "\n".join(recipe.source),
        "name": recipe.name,
        "features": recipe.summary,
        "weights": recipe.weights,
        "backbone": recipe.backbone,
        "sampling": recipe.sampling.line(),
        "preprocessing": canonical_json(recipe.preprocessing),
        "digest": recipe.digest,
    }
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for title, value in lines.items():
        table.add_row(title, escape(value))
    out_console().print(table)
