"""What a call carries from its caller to the shared loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prefect_langgraph.logs import LoggerOrAdapter, run_logger
from prefect_langgraph.ownership.owner import Owner, current_owner
from prefect_langgraph.transport.connection import Connection
from prefect_langgraph.transport.deployment import Deployment, deployment_for

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
    deployment.leases.keep(owner)
    return Context(deployment, owner, run_logger())
