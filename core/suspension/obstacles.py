"""Why a flow run cannot suspend. It then waits in its process: as right, at a higher price."""

from __future__ import annotations

from collections.abc import Iterable

from prefect.context import FlowRunContext, TaskRunContext

from prefect_langgraph.ownership.owner import Owner


def obstacle(owner: Owner, names: Iterable[str | None]) -> str | None:
    """What keeps the caller from suspending, in words; None when nothing does.

    Args:
        owner: The caller.
        names: The saved block by which another process reaches each deployment; None without one.
    """
    context = FlowRunContext.get()
    flow_run = context.flow_run if context is not None else None
    if context is None or flow_run is None:
        return "this is no flow run"
    if context.detached or TaskRunContext.get() is not None:
        return "this is a task, and Prefect suspends flow runs only"
    # Prefect refuses this one also where the subflow is a deployment's.
    if flow_run.parent_task_run_id is not None:
        return "this is a subflow, which Prefect does not suspend"
    if flow_run.deployment_id is None:
        return "this flow run is not of a Prefect deployment, so no worker could start it again"
    if any(name is None for name in names):
        return "the LangGraphCredentials block is not saved, so no other process could ask for the runs"
    if not owner.finalized:
        return "the flow has no finalizer: put @with_finalizer(...) above @flow"
    return None
