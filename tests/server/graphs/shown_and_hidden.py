"""Graphs whose output is not their state: hidden channels, subgraphs, entrypoints, models."""

from __future__ import annotations

import operator
from typing import Annotated, Any

from langgraph.func import entrypoint
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from pydantic import BaseModel, Field
from typing_extensions import TypedDict


class Given(TypedDict, total=False):
    question: str
    ask: bool
    fail: bool


class Shown(TypedDict, total=False):
    answer: str
    total: int


class Everything(Given, Shown, total=False):
    secret: str
    total: Annotated[int, operator.add]


class Opaque:
    """A type that JSON Schema has no words for, so that the server gives no schema of the output."""


class EverythingOpaque(Everything, total=False):
    never: Opaque


class Unspoken(TypedDict, total=False):
    answer: str
    total: int
    never: Opaque


async def think(state: Everything) -> dict[str, Any]:
    return {"secret": f"I think of {state.get('question')}", "total": 1}


async def say(state: Everything) -> dict[str, Any]:
    if state.get("fail"):
        raise RuntimeError("no luck")
    return {"answer": interrupt("May I?") if state.get("ask") else "42"}


def thinker(output: Any, state: Any = Everything) -> Any:
    return (
        StateGraph(state, input_schema=Given, output_schema=output)
        .add_node("think", think)
        .add_node("say", say)
        .add_edge(START, "think")
        .add_edge("think", "say")
        .add_edge("say", END)
        .compile()
    )


private = thinker(Shown)
unspoken = thinker(Unspoken)
opaque = thinker(Shown, EverythingOpaque)


class Outer(TypedDict, total=False):
    question: str
    ask: bool
    answer: str


outer = (
    StateGraph(Outer)
    .add_node("inner", private)
    .add_edge(START, "inner")
    .add_edge("inner", END)
    .compile()
)


@entrypoint()
async def entry(input: Any) -> Any:
    """Gives back what it is given: a text, a number, a list, None."""
    return input


@entrypoint()
async def entry_final(input: Any, *, previous: Any = None) -> entrypoint.final[Any, Any]:
    """Returns one thing and keeps another for its next run."""
    return entrypoint.final(value=f"returned {input}", save=f"kept {input}")


async def add_one(state: list[str]) -> list[str]:
    return ["one"]


root = (
    StateGraph(Annotated[list, operator.add])
    .add_node("add", add_one)
    .add_edge(START, "add")
    .add_edge("add", END)
    .compile()
)


class Named(BaseModel):
    name: str = Field("nobody", alias="fullName")
    age: int = 3


class Modelled(Named):
    inner: str = "private"


async def fill(state: Modelled) -> dict[str, Any]:
    return {"name": "somebody", "inner": "filled"}


modelled = (
    StateGraph(Modelled, output_schema=Named)
    .add_node("fill", fill)
    .add_edge(START, "fill")
    .add_edge("fill", END)
    .compile()
)
