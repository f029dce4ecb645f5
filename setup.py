"""What pyproject.toml cannot say: the top-level weights/ folder is the package tspcli._weights."""

from __future__ import annotations

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["tspcli", "tspcli.*"]), "tspcli._weights"],
    package_dir={"tspcli._weights": "weights"},
    package_data={
        "tspcli": ["py.typed", "**/*.toml", "**/*.json", "**/*.html", "viewer/static/*"],
        "tspcli._weights": [f"**/*.{ending}" for ending in ("json", "txt", "pth", "md")],
    },
    include_package_data=False,
)
