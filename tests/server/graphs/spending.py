"""`spender`: a graph whose messages say what they cost, as its input asks for."""

from __future__ import annotations

from typing import Annotated, Any

from langchain_core.messages import AIMessage, AnyMessage
from langgraph.channels import EphemeralValue
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt
from typing_extensions import TypedDict


class Spending(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    spend: Annotated[list[dict[str, Any]], EphemeralValue]
    asked: bool
    ask: Annotated[bool, EphemeralValue]
    failing: bool
    fail: Annotated[bool, EphemeralValue]


class Answer(TypedDict, total=False):
    """The output: without the messages."""

    asked: bool


def message(item: dict[str, Any]) -> AIMessage:
    if "input" not in item:
        return AIMessage("without a word of its cost")
    counts = {"input_tokens": item["input"], "output_tokens": item.get("output", 0)}
    return AIMessage(
        "said",
        id=item.get("id"),
        response_metadata={"model_name": item["model"]} if "model" in item else {},
        usage_metadata={
            **counts,
            "total_tokens": sum(counts.values()),
            "input_token_details": {"cache_read": item.get("cached", 0)},
        },
    )


async def call(state: Spending) -> dict[str, Any]:
    return {
        "messages": [message(item) for item in state.get("spend") or []],
        "asked": bool(state.get("ask")),
        "failing": bool(state.get("fail")),
    }


async def then(state: Spending) -> dict[str, Any]:
    if state.get("failing"):
        raise RuntimeError("spent, and failed")
    if not state.get("asked"):
        return {}
    interrupt("Go on?")
    return {"messages": [message({"input": 2, "output": 1})]}


def build(output: Any) -> Any:
    return (
        StateGraph(Spending, output_schema=output)
        .add_node("call", call)
        .add_node("then", then)
        .add_edge(START, "call")
        .add_edge("call", "then")
        .add_edge("then", END)
        .compile()
    )


spender = build(Spending)
quiet_spender = build(Answer)
