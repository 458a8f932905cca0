"""Every example in a docstring runs, against the real servers."""

from __future__ import annotations

import doctest
import importlib
import io
import pkgutil
from collections.abc import Iterator

import pytest
from prefect import Flow, Task

import prefect_langgraph

FINDER = doctest.DocTestFinder(exclude_empty=True)
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def modules() -> Iterator[str]:
    """Give the names of all modules. In an editable installation each folder has a path of its own."""
    for layer in ("", ".blocks", ".tasks", ".flows"):
        name = prefect_langgraph.__name__ + layer
        yield name
        for info in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}."):
            yield info.name


def examples() -> Iterator[doctest.DocTest]:
    """Give the examples of every module, function, class, task and flow of the package."""
    for name in modules():
        module = importlib.import_module(name)
        yield from FINDER.find(module, name, module=module)
        for found in vars(module).values():
            # These are objects and no functions, so doctest does not look into them.
            if isinstance(found, Task | Flow) and found.fn.__module__ == name:
                yield from FINDER.find(found.fn, f"{name}.{found.fn.__name__}", module=module)


# doctest itself finds some of them too, and those of the operations that tasks are made of.
EXAMPLES = [
    *{
        test.name: test
        for test in examples()
        if test.examples and not test.name.rpartition(".")[2].startswith("_")
    }.values()
]


def test_public_tasks_and_flows_have_examples_here() -> None:
    names = {test.name.rpartition(".")[2] for test in EXAMPLES}
    for name in prefect_langgraph.__all__:
        found = getattr(prefect_langgraph, name)
        if isinstance(found, Task | Flow) and f"a{name}" in prefect_langgraph.__all__:
            assert found.fn.__name__ in names


def test_no_example_is_skipped() -> None:
    assert not [test.name for test in EXAMPLES for one in test.examples if doctest.SKIP in one.options]


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize(
    "test", EXAMPLES, ids=lambda test: test.name.removeprefix("prefect_langgraph.")
)
def test_example_runs_and_gives_what_it_shows(test: doctest.DocTest) -> None:
    report = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=OPTIONS, verbose=False)
    runner.run(test, out=report.write)
    assert runner.failures == 0, report.getvalue()
