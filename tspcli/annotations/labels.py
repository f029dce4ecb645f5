"""Label mappings: class names in the order of their ids."""

from __future__ import annotations

import json
from pathlib import Path

from tspcli.annotations.files import load_json
from tspcli.errors import AnnotationError
from tspcli.parsing import refuses_damage


@refuses_damage(AnnotationError, "Give a JSON list of names.")
def read_label_mapping(path: str | Path) -> list[str]:
    """Read class names, index = class id: a JSON list, or an object whose ``class`` is that list.

    The second is how the score files of video-level classifiers for ActivityNet tell the order of
    their scores.

    Raises:
        AnnotationError: If it is no list of distinct names.
    """
    data = load_json(path, "label mapping")
    names = data.get("class") if isinstance(data, dict) else data
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names) or not names:
        raise AnnotationError(
            f"The label mapping {path} is no list of class names.",
            remedy='Expected ["name", …]; a name\'s index is its id.',
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise AnnotationError(
            f"The label mapping {path} names {twice[0]!r} twice.", remedy="Every class stands once."
        )
    return names


def write_label_mapping(path: Path, names: list[str]) -> None:
    """Write class names as a JSON list, one a line."""
    path.write_text(
        json.dumps(names, indent=0, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n"
    )
