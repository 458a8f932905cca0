"""A graph that asks several things at once, or one after the other."""

from __future__ import annotations

import operator
from typing import Annotated, Any

from langgraph.graph import END, START, StateGraph
from langgraph.types import Send, interrupt
from typing_extensions import TypedDict


class Asking(TypedDict, total=False):
    at_once: int
    in_turn: int
    answers: Annotated[list[Any], operator.add]


def spread(state: Asking) -> list[Send] | str:
    return [Send("ask", number) for number in range(state.get("at_once", 0))] or "row"


async def start(state: Asking) -> dict[str, Any]:
    return {"answers": []}


async def ask(number: int) -> dict[str, Any]:
    return {"answers": [interrupt(f"Question {number}?")]}


async def row(state: Asking) -> dict[str, Any]:
    return {"answers": [interrupt(f"In turn {number}?") for number in range(state.get("in_turn", 0))]}


asks = (
    StateGraph(Asking)
    .add_node("start", start)
    .add_node("ask", ask)
    .add_node("row", row)
    .add_edge(START, "start")
    .add_conditional_edges("start", spread, ["ask", "row"])
    .add_edge("ask", "row")
    .add_edge("row", END)
    .compile()
)
