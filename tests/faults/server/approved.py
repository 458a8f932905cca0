"""Graphs that ask a person: by langchain's middleware, Agent Inbox, schemas and breakpoints."""

from __future__ import annotations

import operator
import os
from pathlib import Path
from typing import Annotated, Any

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send, interrupt
from pydantic import BaseModel, Field, field_validator
from typing_extensions import TypedDict


def note(tag: str) -> None:
    """Write an execution down; the test counts them."""
    with Path(os.environ["EXECUTIONS_FILE"]).open("a", encoding="utf-8") as file:
        file.write(f"{os.getpid()} {tag}\n")


def noted() -> str:
    """What this test has written down so far."""
    return Path(os.environ["EXECUTIONS_FILE"]).read_text(encoding="utf-8").rpartition("begin\n")[2]


class Planner(BaseChatModel):
    """Calls the tools that the first message names, once, and then says what came of them."""

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        said = [message for message in messages if isinstance(message, ToolMessage)]
        if said:
            text = "; ".join(str(message.content) for message in said)
            return ChatResult(generations=[ChatGeneration(message=AIMessage(text))])
        order, _, sums = str(messages[0].content).partition(" ")
        calls = [
            {"name": "refund", "args": {"order": order, "amount": int(amount)}, "id": f"call-{place}"}
            for place, amount in enumerate(sums.split())
        ]
        return ChatResult(generations=[ChatGeneration(message=AIMessage("", tool_calls=calls))])

    def bind_tools(self, tools: Any, **kwargs: Any) -> Planner:
        return self

    @property
    def _llm_type(self) -> str:
        return "planner"


@tool
def refund(order: str, amount: int) -> str:
    """Refund an order."""
    note(f"refund {order} {amount}")
    if order == "unknown":
        raise LookupError(order)
    return f"refunded {amount} of {order}"


def reviewed(mode: Any) -> Any:
    """An agent whose refunds a person reviews."""
    decisions = ["approve", "edit", "reject", "respond"]
    middleware: Any = HumanInTheLoopMiddleware(
        interrupt_on={"refund": {"allowed_decisions": decisions}}, interrupt_mode=mode
    )
    return create_agent(Planner(), [refund], middleware=[middleware])


batched = reviewed("batched")
per_call = reviewed("per_call")


class Case(TypedDict, total=False):
    tag: str
    asks: int
    in_turn: int
    say: str
    times: int
    schema: bool
    fail: bool
    answers: Annotated[list[Any], operator.add]


class Payment(BaseModel):
    ok: bool
    amount: int = Field(ge=1, le=100)
    why: str = ""

    @field_validator("why")
    @classmethod
    def says_why(cls, why: str) -> str:
        if why == "because":
            raise ValueError("because is no reason")
        return why


def spread(state: Case) -> list[Send] | str:
    return [Send("ask", {**state, "asks": place}) for place in range(state.get("asks", 0))] or "turns"


async def begin(state: Case) -> Case:
    note(f"begin {state.get('tag')}")
    return {"answers": []}


async def ask(state: Case) -> Case:
    said = (
        state.get("say", "") * state.get("times", 1)
        or f"Question {state['asks']} of {state.get('tag')}?"
    )
    if state.get("schema"):
        payment = interrupt(said, response_schema=Payment)
        return {"answers": [payment.model_dump()]}
    return {"answers": [interrupt(said)]}


async def turns(state: Case) -> Case:
    found = [
        interrupt(f"Turn {place} of {state.get('tag')}?") for place in range(state.get("in_turn", 0))
    ]
    again = f"end {state.get('tag')}" in noted()
    note(f"end {state.get('tag')}")
    if state.get("fail") and not again:
        raise RuntimeError("after the answer")
    return {"answers": found}


case = (
    StateGraph(Case)
    .add_node("begin", begin)
    .add_node("ask", ask)
    .add_node("turns", turns)
    .add_edge(START, "begin")
    .add_conditional_edges("begin", spread, ["ask", "turns"])
    .add_edge("ask", "turns")
    .add_edge("turns", END)
    .compile()
)


class Mail(TypedDict, total=False):
    said: Any


async def inbox_ask(state: Mail) -> Mail:
    request = {
        "action_request": {"action": "send_mail", "args": {"to": "a@example.org", "text": "Hi"}},
        "config": {
            "allow_accept": True,
            "allow_edit": True,
            "allow_ignore": True,
            "allow_respond": True,
        },
        "description": "Shall this be sent?",
    }
    return {"said": interrupt([request])[0]}


inbox = (
    StateGraph(Mail).add_node("ask", inbox_ask).add_edge(START, "ask").add_edge("ask", END).compile()
)

breakpoint_graph = (
    StateGraph(Case)
    .add_node("begin", begin)
    .add_node("turns", turns)
    .add_edge(START, "begin")
    .add_edge("begin", "turns")
    .add_edge("turns", END)
    .compile(interrupt_before=["turns"])
)


async def insist(state: Case) -> Case:
    """Take "yes", and nothing else: fail on another answer, or ask for it again."""
    answer = interrupt("Yes?")
    if answer != "yes" and state.get("fail"):
        raise ValueError("only yes will do")
    while answer != "yes":
        answer = interrupt("Yes?")
    return {"answers": [answer]}


stubborn = (
    StateGraph(Case)
    .add_node("insist", insist)
    .add_edge(START, "insist")
    .add_edge("insist", END)
    .compile()
)


async def ask_first(state: Case, config: RunnableConfig) -> Case:
    interrupt("Go on?")
    return {"answers": [config["recursion_limit"], *sorted(config["tags"])]}


configured = (
    StateGraph(Case)
    .add_node("ask", ask_first)
    .add_node("begin", begin)
    .add_edge(START, "ask")
    .add_edge("ask", "begin")
    .add_edge("begin", END)
    .compile()
)
