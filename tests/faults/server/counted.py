"""`counted`: a graph that writes down each execution of a run, in a file that tests read.

Takes `{"tag": ..., "sleep": seconds, "fail": message, "ask": question}`; `result` is the tag.
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
    fail: str
    ask: str
    result: str
    answer: Any


def _note(run_id: str, tag: str) -> None:
    with Path(os.environ["EXECUTIONS_FILE"]).open("a", encoding="utf-8") as file:
        file.write(f"{run_id} {tag}\n")


async def work(state: Work, config: RunnableConfig) -> Work:
    run_id = str(config.get("metadata", {}).get("run_id"))
    await asyncio.to_thread(_note, run_id, state.get("tag", ""))
    await asyncio.sleep(state.get("sleep", 0))
    if fail := state.get("fail"):
        raise RuntimeError(fail)
    update: Work = {"result": state.get("tag", "")}
    if ask := state.get("ask"):
        update["answer"] = interrupt(ask)
    return update


counted = (
    StateGraph(Work).add_node("work", work).add_edge(START, "work").add_edge("work", END).compile()
)
