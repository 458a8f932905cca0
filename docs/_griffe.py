"""What griffe, which reads the docstrings for the reference, does not know about them."""

from __future__ import annotations

import ast
from typing import Any

import griffe


def twin_of(task: griffe.Function) -> griffe.Function:
    """The asynchronous twin of a task, with the docstring that it has when the package is imported."""
    told = task.docstring.value if task.docstring is not None else ""
    summary = told.partition("\n")[0].rstrip(".")
    twin = griffe.Function(
        f"a{task.name}",
        parameters=task.parameters,
        returns=task.returns,
        lineno=task.lineno,
        endlineno=task.endlineno,
        docstring=griffe.Docstring(
            f"{summary}: the asynchronous twin of `{task.name}`, with its arguments."
        ),
    )
    twin.labels.add("async")
    return twin


class HouseStyle(griffe.Extension):
    """Read docstrings as this package writes them.

    `Example:` is what griffe knows as `Examples:`: code, and not prose. What is said about a field of a
    block stands in its `description`, where Prefect's form has it from.
    """

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")

    def on_module_members(self, *, mod: griffe.Module, **kwargs: Any) -> None:
        # `run_stateless, arun_stateless = faces(_run_stateless, ...)`: both have the signature and
        # the synchronous one has the docstring of the operation.
        for name, operation in list(mod.functions.items()):
            task = name.removeprefix("_")
            if f"\n{task}, a{task} = " in mod.source:
                operation.name = task
                mod.set_member(task, operation)
                mod.set_member(f"a{task}", twin_of(operation))

    def on_attribute(self, *, attr: griffe.Attribute, **kwargs: Any) -> None:
        field = attr.value
        if not isinstance(field, griffe.ExprCall) or attr.docstring is not None:
            return
        for argument in field.arguments:
            if isinstance(argument, griffe.ExprKeyword) and argument.name == "description":
                attr.docstring = griffe.Docstring(ast.literal_eval(str(argument.value)), parent=attr)
