"""Graphs of which JSON cannot express the state or the question, or which refuse their input."""

from __future__ import annotations

from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from pydantic import BaseModel

# The server cannot express the schemas of a graph whose state is a TypedDict of Python 3.11's typing.
from typing_extensions import TypedDict


class Anything(TypedDict, total=False):
    given: Any
    result: Any


class Strict(BaseModel):
    """A state that refuses an input whose `number` is none."""

    number: int = 0
    result: str = ""


def _graph(state: type, node: Any) -> Any:
    return (
        StateGraph(state).add_node("work", node).add_edge(START, "work").add_edge("work", END).compile()
    )


def _tuple_key(state: Anything) -> Anything:
    return {"result": {("a", "b"): 1}}


def _bytes_key(state: Anything) -> Anything:
    return {"result": {b"a": 1}}


def _big_int(state: Anything) -> Anything:
    return {"result": 2**80}


def _deep(state: Anything) -> Anything:
    value: Any = "end"
    for _ in range(400):
        value = [value]
    return {"result": value}


def _asks_with_tuple_key(state: Anything) -> Anything:
    return {"result": interrupt({("a", "b"): 1})}


def _asks_with_big_int(state: Anything) -> Anything:
    return {"result": interrupt(2**80)}


def _raises(state: Anything) -> Anything:
    raise ValueError(f"no good: {state.get('given')}")


def _strict(state: Strict) -> dict[str, str]:
    return {"result": f"number {state.number}"}


tuple_key = _graph(Anything, _tuple_key)
bytes_key = _graph(Anything, _bytes_key)
big_int = _graph(Anything, _big_int)
deep = _graph(Anything, _deep)
asks_with_tuple_key = _graph(Anything, _asks_with_tuple_key)
asks_with_big_int = _graph(Anything, _asks_with_big_int)
raises = _graph(Anything, _raises)
strict = _graph(Strict, _strict)
