"""`untold`: `counted` without its options, and with a schema that the server cannot express."""

from __future__ import annotations

import asyncio

from counted import note
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict


class Opaque:
    """A type that JSON Schema has no words for."""


class Work(TypedDict, total=False):
    tag: str
    result: str
    never: Opaque


async def work(state: Work, config: RunnableConfig) -> Work:
    run_id = str(config.get("metadata", {}).get("run_id"))
    await asyncio.to_thread(note, run_id, state.get("tag", ""))
    return {"result": state.get("tag", "")}


untold = StateGraph(Work).add_node("work", work).add_edge(START, "work").add_edge("work", END).compile()
