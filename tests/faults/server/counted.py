"""`counted`: a graph that writes down each execution of a run, in a file that tests read.

Takes `{"tag": ..., "sleep": seconds, "fail_first": n, "gate": true, "ask": question}`: the first n
executions of a tag fail; behind a gate they wait until the test opens it or is over. `result` is the
tag.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

# Of typing's own TypedDict the server of Python 3.11 expresses no schema.
from typing_extensions import TypedDict


class Work(TypedDict, total=False):
    tag: str
    sleep: float
    fail_first: int
    gate: bool
    ask: str
    result: str
    answer: Any


def _lines() -> list[str]:
    text = Path(os.environ["EXECUTIONS_FILE"]).read_text(encoding="utf-8")
    return text.rpartition("begin\n")[2].splitlines()


def _is_open(run_id: str) -> bool:
    """True when the test opened the gate, or is over: no run holds the server's slots after it."""
    lines = _lines()
    return "open" in lines or not any(line.partition(" ")[0] == run_id for line in lines)


def note(run_id: str, tag: str) -> int:
    """Write an execution down; which one of its tag it is, since the last `begin`."""
    with Path(os.environ["EXECUTIONS_FILE"]).open("a", encoding="utf-8") as file:
        file.write(f"{run_id} {tag}\n")
    return sum(line.partition(" ")[2] == tag for line in _lines())


async def work(state: Work, config: RunnableConfig) -> Work:
    run_id = str(config.get("metadata", {}).get("run_id"))
    number = await asyncio.to_thread(note, run_id, state.get("tag", ""))
    await asyncio.sleep(state.get("sleep", 0))
    while state.get("gate") and not await asyncio.to_thread(_is_open, run_id):  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    if number <= state.get("fail_first", 0):
        raise RuntimeError(f"execution {number} fails")
    update: Work = {"result": state.get("tag", "")}
    if ask := state.get("ask"):
        update["answer"] = interrupt(ask)
    return update


counted = (
    StateGraph(Work).add_node("work", work).add_edge(START, "work").add_edge("work", END).compile()
)
