"""What a call carries from its caller to the shared loop."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import anyio

from prefect_langgraph.logs import LoggerOrAdapter, run_logger
from prefect_langgraph.ownership.heartbeat import Heartbeats
from prefect_langgraph.ownership.owner import Owner, current_owner
from prefect_langgraph.transport.connection import Connection
from prefect_langgraph.transport.deployment import Deployment, deployment_for
from prefect_langgraph.transport.loop import io_loop

OnTimeout = Literal["cancel", "leave"]

CancelAction = Literal["interrupt", "rollback"]


@dataclass(frozen=True)
class Context:
    """What a call carries from its caller to the shared loop."""

    deployment: Deployment
    owner: Owner
    logger: LoggerOrAdapter


async def context_of(connection: Connection) -> Context:
    """The context of a call, taken from the Prefect context that came along with it."""
    owner = await current_owner().with_root()
    deployment = deployment_for(connection)
    deployment.part(Heartbeats).begin(owner)
    return Context(deployment, owner, run_logger())


Undo = Callable[[], Coroutine[Any, Any, Any]]

undone_if_interrupted: contextvars.ContextVar[list[Undo] | None] = contextvars.ContextVar(
    "undone_if_interrupted", default=None
)
"""Collects what undoes a call. The caller's side sets it, and undoes the call when it is interrupted.

A call may have created what it was asked for when its caller is cancelled and never hears of it.
"""


def undo_if_interrupted(undo: Undo) -> None:
    """Have something undone should the caller be interrupted before it has the result."""
    undos = undone_if_interrupted.get()
    if undos is not None:
        undos.append(undo)


@contextmanager
def undoing() -> Iterator[None]:
    """Undo what a call has made, when its caller is interrupted before it has the result.

    Inside another `undoing` that one does it, which sees the caller for longer.
    """
    if undone_if_interrupted.get() is not None:
        yield
        return
    undos: list[Undo] = []
    token = undone_if_interrupted.set(undos)
    try:
        yield
    except Exception:
        raise
    except BaseException:
        for undo in undos:
            io_loop().run(undo)
        raise
    finally:
        undone_if_interrupted.reset(token)


@asynccontextmanager
async def aundoing() -> AsyncIterator[None]:
    """`undoing` for an asynchronous caller."""
    if undone_if_interrupted.get() is not None:
        yield
        return
    undos: list[Undo] = []
    token = undone_if_interrupted.set(undos)
    try:
        yield
    except asyncio.CancelledError:
        for undo in undos:
            with anyio.CancelScope(shield=True):
                await io_loop().arun(undo)
        raise
    finally:
        undone_if_interrupted.reset(token)
