"""`counted`: a graph that writes down each execution of a run, in a file that tests read.

Takes `{"tag": ..., "sleep": seconds, "fail_first": n, "gate": true, "ask": question}`: the first n
executions of a tag fail; behind a gate they wait until a test opens it. `result` is the tag.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt


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


def _is_open() -> bool:
    return "open" in _lines()


def _note(run_id: str, tag: str) -> int:
    """Write an execution down; which one of its tag it is, since the last `begin`."""
    with Path(os.environ["EXECUTIONS_FILE"]).open("a", encoding="utf-8") as file:
        file.write(f"{run_id} {tag}\n")
    return sum(line.partition(" ")[2] == tag for line in _lines())


async def work(state: Work, config: RunnableConfig) -> Work:
    run_id = str(config.get("metadata", {}).get("run_id"))
    number = await asyncio.to_thread(_note, run_id, state.get("tag", ""))
    await asyncio.sleep(state.get("sleep", 0))
    while state.get("gate") and not await asyncio.to_thread(_is_open):  # noqa: ASYNC110
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
