"""Who may import whom: imports run one way, from the command line down to the errors."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "tspcli"

# What a package may import besides itself and `errors`.
_GROUND = {"core", "sampling"}
_LOWER = {*_GROUND, "fetch", "recipes", "video", "store", "encoders", "annotations"}
FLOORS: dict[str, set[str]] = {
    "errors": set(),
    "core": set(),
    "sampling": set(),
    "fetch": {"core"},
    "recipes": _GROUND,
    "video": _GROUND,
    "store": _GROUND,
    "encoders": {*_GROUND, "fetch", "recipes"},
    "annotations": {*_GROUND, "video"},
    "extraction": _LOWER,
    "pretraining": _LOWER,
    "localization": _LOWER - {"encoders"},
    "exports": _LOWER - {"encoders"},
    "analysis": _LOWER - {"encoders"},
    "doctor": _LOWER,
    "viewer": {*_GROUND, "analysis", "localization", "annotations", "store", "video"},
}
ABOVE = {"cli", "__init__", "__main__"}
"""They import everything, and nothing imports them."""

# One module alone, where the table above would let in more than is meant.
ONLY = {
    ("annotations", "video"): {"tspcli.annotations.training_tables"},
    ("pretraining", "store"): {"tspcli.store.gvf"},
}


def imports_of(path: Path) -> set[str]:
    """The modules of ours that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} imports by dots"
            found.add(node.module)
            if node.module == "tspcli":
                found |= {f"tspcli.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "tspcli"}


def module_name(path: Path) -> str:
    dotted = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    return dotted.removesuffix(".__init__")


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def breaches() -> set[tuple[str, str]]:
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        module = module_name(path)
        own = room(module)
        if own in ABOVE:
            continue
        assert own in FLOORS, f"{module} is in no floor's table"
        for other in imports_of(path):
            target = room(other)
            if target in (own, "errors"):
                continue
            narrow = ONLY.get((own, target))
            if target not in FLOORS[own] or (narrow is not None and not ({module, other} & narrow)):
                found.add((module, other))
    return found


def test_imports_run_one_way() -> None:
    assert not breaches()


def test_the_package_outside_of_it_is_not_imported() -> None:
    outside = {"reproduction", "benchmarks", "tests", "tools"}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.module if isinstance(node, ast.ImportFrom) else None
            assert (name or "").split(".")[0] not in outside, path


def private_names(tree: ast.AST) -> set[str]:
    """The private names of the package that a test imports, or patches by its name."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tspcli":
            found |= {*str(node.module).split("."), *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == "tspcli"]
            found |= {part for name in names for part in name.split(".")}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            (".setattr", ".delattr")
        ):
            texts = [str(a.value) for a in node.args[:2] if isinstance(a, ast.Constant)]
            is_path = isinstance(node.args[0], ast.Constant)
            if texts and (not is_path or texts[0].startswith("tspcli.")):
                found |= {part for text in texts for part in text.split(".")}
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


def test_no_test_uses_a_private_name() -> None:
    """Tests hold what is promised, so that what is behind it can change."""
    found = {
        str(path.relative_to(TESTS)): names
        for path in TESTS.rglob("*.py")
        if (names := private_names(ast.parse(path.read_text())))
    }
    # Of the system's os, which is patched where the process would really end.
    assert found.pop("core/test_stop.py", {"_exit"}) == {"_exit"}
    assert not found


def test_no_file_is_too_long_to_read() -> None:
    long = {str(p) for p in PACKAGE.rglob("*.py") if len(p.read_text().splitlines()) > 450}
    assert not long


def test_two_files_share_a_name_only_where_one_is_the_command_of_the_other() -> None:
    places: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        if path.stem not in ("__init__", "__main__") and path.parent.name != "cli":
            places.setdefault(path.stem, []).append(module_name(path))
    assert not {name: found for name, found in places.items() if len(found) > 1}
