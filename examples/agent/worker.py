"""`worker`: a graph that does what its input asks for, to show every way in which a run can end.

    {"tag": "a"}                    ends well; `result` is the tag
    {"sleep": 2}                    waits that many seconds in the node `work`
    {"fail": "no luck"}             raises RuntimeError("no luck"), after the sleep
    {"interrupts": 1}               stops at one interrupt(); resumed, it notes the answer
    {"interrupts": 3}               stops at three at once, in parallel graph tasks
    {"size": 100_000}               gives back `payload`, a string of that many bytes
    {"events": [1, "two"]}          writes each to the stream mode `custom`
    {"usage": {"input_tokens": 3, "output_tokens": 4}}
                                    gives back an AI message that carries this token usage

A run that asks for several gets all. The node `prepare` comes first and writes
`result = "partial"`, which is what a run that was cut short leaves behind. For a static breakpoint
start it with `interrupt_before=["work"]`. `steps` remembers all runs of a thread; what an input
asked for is forgotten with its run.
"""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, Any

from langchain_core.messages import AIMessage, AnyMessage
from langgraph.channels import EphemeralValue
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Send, interrupt

# The server cannot express the schemas of a graph whose state is a TypedDict of Python 3.11's typing.
from typing_extensions import TypedDict


class Asked(TypedDict, total=False):
    # Ephemeral, or a later run on the same thread would be asked for the same again.
    tag: Annotated[str, EphemeralValue]
    sleep: Annotated[float, EphemeralValue]
    fail: Annotated[str, EphemeralValue]
    interrupts: Annotated[int, EphemeralValue]
    size: Annotated[int, EphemeralValue]
    events: Annotated[list[Any], EphemeralValue]
    usage: Annotated[dict[str, int], EphemeralValue]


class Worker(Asked, total=False):
    request: dict[str, Any]
    steps: Annotated[list[str], operator.add]
    answers: Annotated[list[Any], operator.add]
    result: str
    payload: str
    messages: Annotated[list[AnyMessage], add_messages]


async def prepare(state: Worker) -> Worker:
    request = {key: state[key] for key in Asked.__annotations__ if state.get(key) is not None}
    return {"request": request, "result": "partial", "payload": "", "steps": ["prepare"]}


async def work(state: Worker) -> Worker:
    request = state["request"]
    write = get_stream_writer()
    for event in request.get("events", []):
        write(event)
    await asyncio.sleep(request.get("sleep", 0))
    if "fail" in request:
        raise RuntimeError(request["fail"])
    update: Worker = {"steps": ["work"], "payload": "x" * request.get("size", 0)}
    if usage := request.get("usage"):
        total = usage.get("input_tokens", 0) + usage.get("output_tokens", 0)
        update["messages"] = [AIMessage("done", usage_metadata={**usage, "total_tokens": total})]
    return update


def questions(state: Worker) -> str | list[Send]:
    count = state["request"].get("interrupts", 0)
    return [Send("ask", {"number": number}) for number in range(1, count + 1)] or "finish"


async def ask(question: dict[str, Any]) -> Worker:
    answer = interrupt({"question": f"Question {question['number']}: may I go on?"})
    return {"answers": [answer], "steps": ["ask"]}


async def finish(state: Worker) -> Worker:
    return {"result": state["request"].get("tag", "done"), "steps": ["finish"]}


worker = (
    StateGraph(Worker)
    .add_node("prepare", prepare)
    .add_node("work", work)
    .add_node("ask", ask)
    .add_node("finish", finish)
    .add_edge(START, "prepare")
    .add_edge("prepare", "work")
    .add_conditional_edges("work", questions, ["ask", "finish"])
    .add_edge("ask", "finish")
    .add_edge("finish", END)
    .compile()
)
