"""The rules of the source tree: import directions, no private modules of others, packages of nouns."""

from __future__ import annotations

import ast
import re
from collections.abc import Container, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ["core", "blocks", "tasks", "flows"]
FUNCTION, MODULES = 60, 9

# The public names are gathered, lazily, in the one; the other is the command line over everything.
MAY_IMPORT_ALL = {"core/__init__.py", "core/cli.py"}

# From the top to the bottom: a package imports only what stands after it.
ORDER = [
    *("doctor", "approvals", "suspension", "crons", "cleanup", "many_runs", "streams", "runs"),
    *("ownership", "reports", "transport", "headers", "schedules", "testing"),
    *("results", "arguments", "errors", "models", "links", "canonical", "logs", "texts", "_version"),
]
# Errors carry results, and results raise errors: the one arrow of types that goes up.
TYPES_GO_UP = {("core/errors.py", "prefect_langgraph.results")}

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


CORE = [
    file for file in PACKAGE if file.is_relative_to(ROOT / "core") and name(file) not in MAY_IMPORT_ALL
]


@pytest.mark.parametrize("file", CORE, ids=name)
def test_packages_of_core_import_only_what_stands_below_them(file: Path) -> None:
    own = ORDER.index(file.relative_to(ROOT / "core").parts[0].removesuffix(".py"))
    wrong = [
        f"{name(file)}:{line} imports {module}"
        for line, module in imports(parse(file))
        if module.startswith("prefect_langgraph.")
        and ORDER.index(module.split(".")[1]) < own
        and (name(file), module.rpartition(".")[0]) not in TYPES_GO_UP
    ]
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = {dotted(file): file for file in PACKAGE if name(file) not in MAY_IMPORT_ALL}
    below = {
        module: {found for _, path in imports(parse(file)) if (found := home_of(path, modules))}
        for module, file in modules.items()
    }
    below["prefect_langgraph.errors"].discard("prefect_langgraph.results")
    TopologicalSorter(below).prepare()


def dotted(file: Path) -> str:
    top, *rest = file.relative_to(ROOT).with_suffix("").parts
    parts = [*([] if top == "core" else [top]), *rest]
    return ".".join(["prefect_langgraph", *parts]).removesuffix(".__init__")


def home_of(path: str, modules: Container[str]) -> str | None:
    """The module of ours that an imported name is in, or is."""
    return next((home for home in (path, path.rpartition(".")[0]) if home in modules), None)


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
        f"{name(file)}:{node.lineno} {node.name} has a body of {lines} lines"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := length(node)) >= FUNCTION
    ]
    assert long == []


@pytest.mark.parametrize("package", [*PACKAGES, *(ROOT / layer for layer in LAYERS[1:])], ids=name)
def test_docstring_of_a_package_names_its_modules(package: Path) -> None:
    modules = {file.stem for file in package.glob("*.py")} - {"__init__"}
    docstring = ast.get_docstring(parse(package / "__init__.py")) or ""
    rows = re.findall(r"^\| `(\w+)`", docstring, flags=re.MULTILINE)
    assert sorted(rows) == sorted(modules)


@pytest.mark.parametrize("package", PACKAGES, ids=name)
def test_package_of_core_has_few_modules(package: Path) -> None:
    assert len(list(package.glob("*.py"))) - 1 <= MODULES


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of its body: a signature of thirty arguments is no work to read."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("file", PACKAGE, ids=name)
def test_private_names_stay_in_their_module(file: Path) -> None:
    wrong = [
        f"{name(file)}:{line} imports {module}"
        for line, module in imports(parse(file))
        if module.startswith("prefect_langgraph.")
        and module.rpartition(".")[2].startswith("_")
        and not module.endswith("__version__")
    ]
    assert wrong == []


@pytest.mark.parametrize("file", PACKAGE, ids=name)
def test_arguments_are_passed_by_name_and_never_as_all_locals(file: Path) -> None:
    wrong = [
        f"{name(file)}:{node.lineno}"
        for node in ast.walk(parse(file))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "locals"
    ]
    assert wrong == []


def test_no_folder_shadows_the_installed_package() -> None:
    assert not (ROOT / "prefect_langgraph").exists()
