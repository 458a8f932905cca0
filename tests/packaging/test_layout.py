"""The rules of the source tree: import directions, no private modules of others, packages of nouns."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ["core", "blocks", "tasks", "flows"]
FUNCTION, MODULES = 60, 9

# The public names are gathered, lazily, in the one; the other is the command line over everything.
MAY_IMPORT_ALL = {"core/__init__.py", "core/cli.py"}

# What tests import from each other lies below tests/.
OURS = {"prefect_langgraph", *(path.stem for path in (ROOT / "tests").iterdir())}

PACKAGES = sorted(file.parent for file in (ROOT / "core").glob("*/__init__.py"))
PACKAGE = sorted(file for layer in LAYERS for file in (ROOT / layer).rglob("*.py"))
OTHERS = sorted(f for top in ("tests", "benchmarks", "examples") for f in (ROOT / top).rglob("*.py"))


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Give the line and the dotted name of everything that is imported, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def layer_of(module: str) -> str | None:
    """Tell which folder an absolute import of ours leads to."""
    head, _, rest = module.partition(".")
    if head != "prefect_langgraph":
        return None
    first = rest.partition(".")[0]
    return first if first in LAYERS[1:] else "core"


@pytest.mark.parametrize("file", PACKAGE, ids=name)
def test_package_imports_only_what_is_below_it(file: Path) -> None:
    if name(file) in MAY_IMPORT_ALL:
        return
    own = LAYERS.index(file.relative_to(ROOT).parts[0])
    wrong = [
        f"{name(file)}:{line} imports {module}"
        for line, module in imports(parse(file))
        if (layer := layer_of(module)) is not None and LAYERS.index(layer) > own
    ]
    assert wrong == []


@pytest.mark.parametrize("file", PACKAGE, ids=name)
def test_package_knows_its_upper_layers_not_even_by_a_string(file: Path) -> None:
    if name(file) in MAY_IMPORT_ALL:
        return
    own = LAYERS.index(file.relative_to(ROOT).parts[0])
    wrong = [
        f"{name(file)}:{node.lineno} names {node.value}"
        for node in ast.walk(parse(file))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and " " not in node.value
        and (layer := layer_of(node.value)) is not None
        and LAYERS.index(layer) > own
    ]
    assert wrong == []


@pytest.mark.parametrize("file", [*PACKAGE, *OTHERS], ids=name)
def test_imports_of_ours_are_absolute(file: Path) -> None:
    # A bare `tasks` makes a second copy of the module; a relative import breaks when Prefect loads a
    # flow by its file's path.
    wrong = [
        f"{name(file)}:{line} imports {module}"
        for line, module in imports(parse(file))
        if module.startswith(".") or module.partition(".")[0] in LAYERS
    ]
    assert wrong == []


@pytest.mark.parametrize("file", [*PACKAGE, *OTHERS], ids=name)
def test_private_modules_of_others_are_not_touched(file: Path) -> None:
    tree = parse(file)
    wrong = [
        f"{name(file)}:{line} imports {module}"
        for line, module in imports(tree)
        if module.partition(".")[0] not in OURS
        and any(part.startswith("_") and not part.startswith("__") for part in module.split("."))
    ]
    wrong += [
        f"{name(file)}:{node.lineno} uses .{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in {"_internal", "_experimental"}
    ]
    assert wrong == []


@pytest.mark.parametrize("file", PACKAGE, ids=name)
def test_functions_stay_small(file: Path) -> None:
    tree = parse(file)
    long = [
        f"{name(file)}:{node.lineno} {node.name} has {lines} lines without its docstring"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := length(node)) >= FUNCTION
    ]
    assert long == []


@pytest.mark.parametrize("package", PACKAGES, ids=name)
def test_docstring_of_a_package_names_its_modules(package: Path) -> None:
    modules = {file.stem for file in package.glob("*.py")} - {"__init__"}
    docstring = ast.get_docstring(parse(package / "__init__.py")) or ""
    rows = re.findall(r"^\| `(\w+)`", docstring, flags=re.MULTILINE)
    assert sorted(rows) == sorted(modules)
    assert len(modules) <= MODULES


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    total = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        total -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return total


def test_no_folder_shadows_the_installed_package() -> None:
    assert not (ROOT / "prefect_langgraph").exists()
