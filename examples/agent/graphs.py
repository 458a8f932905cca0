"""Graphs that need no model and no key: `answer`, `chat`, `critic`, `refunds` and `headers`.

Tests, the demo and the benchmarks share them. Nodes are coroutines and never block: `langgraph dev`
turns a blocking call into an error.
"""

from __future__ import annotations

import operator
from typing import Annotated, Any

from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.runtime import Runtime
from langgraph.types import interrupt

# The server cannot express the schemas of a graph whose state is a TypedDict of Python 3.11's typing.
from typing_extensions import TypedDict


class Question(TypedDict, total=False):
    question: str
    answer: str


async def reply(state: Question) -> Question:
    return {"answer": f"You asked: {state.get('question', 'nothing')}"}


answer = (
    StateGraph(Question)
    .add_node("reply", reply)
    .add_edge(START, "reply")
    .add_edge("reply", END)
    .compile()
)


class Conversation(TypedDict, total=False):
    """What `chat` and `critic` share, so that they can take turns on one thread."""

    messages: Annotated[list[AnyMessage], add_messages]
    turns: Annotated[int, operator.add]


def speaker(default_name: str) -> Any:
    """A graph that answers the last message, under the name in its assistant's config."""

    async def speak(state: Conversation, config: RunnableConfig) -> Conversation:
        name = config.get("configurable", {}).get("name", default_name)
        messages = state.get("messages", [])
        heard = messages[-1].text if messages else "nothing"
        turn = state.get("turns", 0) + 1
        text = f"{name} heard {heard!r} in turn {turn}"
        return {"messages": [AIMessage(text, name=name)], "turns": 1}

    return (
        StateGraph(Conversation)
        .add_node("speak", speak)
        .add_edge(START, "speak")
        .add_edge("speak", END)
        .compile()
    )


chat = speaker("chat")
critic = speaker("critic")


class Refund(TypedDict, total=False):
    order: str
    amount: int
    said: str


async def review(state: Refund) -> Refund:
    """Ask a person, in the words of langchain's `HumanInTheLoopMiddleware`."""
    arguments = {"order": state.get("order", "A-1"), "amount": state.get("amount", 10)}
    request = {"name": "refund", "args": arguments, "description": "May I refund this order?"}
    allowed = {"action_name": "refund", "allowed_decisions": ["approve", "edit", "reject"]}
    reply = interrupt({"action_requests": [request], "review_configs": [allowed]})
    decision = reply["decisions"][0]
    if decision["type"] == "reject":
        return {"said": f"not refunded: {decision.get('message', 'rejected')}"}
    if decision["type"] == "edit":
        arguments = decision["edited_action"]["args"]
    return {"said": f"refunded {arguments['amount']} of {arguments['order']}"}


refunds = (
    StateGraph(Refund)
    .add_node("review", review)
    .add_edge(START, "review")
    .add_edge("review", END)
    .compile()
)


class Given(TypedDict, total=False):
    # LangGraph reserves the name "configurable".
    given: dict[str, Any]
    given_context: dict[str, Any]


async def give_back(state: Given, config: RunnableConfig, runtime: Runtime[dict[str, Any]]) -> Given:
    # LangGraph keeps objects of its own beside what the caller configured.
    given = {
        key: value
        for key, value in config.get("configurable", {}).items()
        if not key.startswith("__") and isinstance(value, str | int | float | bool | None)
    }
    return {"given": given, "given_context": dict(runtime.context or {})}


headers = (
    StateGraph(Given, context_schema=dict)
    .add_node("give_back", give_back)
    .add_edge(START, "give_back")
    .add_edge("give_back", END)
    .compile()
)
