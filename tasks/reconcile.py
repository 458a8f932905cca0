"""Crons as desired state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect_langgraph.blocks.credentials import Credentials
from prefect_langgraph.crons.models import CronPlan
from prefect_langgraph.crons.reconcile import reconcile
from prefect_langgraph.crons.spec_file import Specs
from prefect_langgraph.reports.artifacts import publish_table, table_key
from prefect_langgraph.tasks._task import context_for, faces


def _run_name(parameters: Mapping[str, Any]) -> str:
    return reconcile_name(parameters.get("owner"), parameters.get("specs"))


def reconcile_name(owner: str | None, specs: Any) -> str:
    """What runs that reconcile are called: by the owner, or by the file that says it."""
    whose = owner or (specs if isinstance(specs, str | Path) else None)
    return f"reconcile crons of {whose}" if whose else "reconcile crons"


async def reconciled(
    specs: Specs,
    *,
    owner: str | None,
    prune: bool,
    dry_run: bool,
    credentials: Credentials,
) -> CronPlan:
    """What `reconcile_crons` does, without a task run and its artifact."""
    context = await context_for(credentials)
    return await reconcile(context, specs, owner=owner, prune=prune, dry_run=dry_run)


async def _reconcile_crons(
    specs: Specs,
    *,
    owner: str | None = None,
    prune: bool = True,
    dry_run: bool = False,
    credentials: Credentials = None,
) -> CronPlan:
    """Make an owner's crons on the deployment what they should be.

    Creates what is missing, updates what differs, deletes what is not wanted any more and leaves the
    rest, as a person would see it: what somebody changed by hand is changed back. A second call
    changes nothing, so a retry is safe. Crons are told by their owner and name, which stand in their
    metadata. Other owners' crons, and those of flow runs, are not touched; crons that nobody owns are
    listed and not touched. The plan is a table artifact of the task run. `areconcile_crons` is the
    asynchronous twin.

    Args:
        specs: `CronSpec`s, or mappings with their fields, or the path of a YAML or JSON file that
            holds a list of them, alone or under `crons:` beside `owner:`.
        owner: Whose crons these are: a team, a repository. None takes the file's.
        prune: False leaves crons of the owner's that are not in `specs`.
        dry_run: True changes nothing and returns the plan.
        credentials: A saved block's name, a block, or None for the block named `default`.

    Returns:
        What was done, or would be.

    Raises:
        ScheduleError: Schedules that no Deploy cron says; nothing was changed.
        InvalidRequestError: Specifications that are wrong otherwise; nothing was changed.
        DeploymentError: A change failed; the others were made. Calling again makes the rest.

    Example:
        >>> from prefect_langgraph import CronSpec, reconcile_crons
        >>> spec = CronSpec(name="digest", assistant_id="answer", schedule="0 9 * * 1-5")
        >>> plan = reconcile_crons([spec], owner="docs", dry_run=True)
        >>> [(change.action, change.name) for change in plan.changes]
        [('create', 'digest')]
    """
    plan = await reconciled(specs, owner=owner, prune=prune, dry_run=dry_run, credentials=credentials)
    said = str(plan)
    said = said[0].upper() + said[1:]
    await publish_table(table_key("langgraph-crons", plan.owner), plan.rows(), said)
    return plan


reconcile_crons, areconcile_crons = faces(_reconcile_crons, run_name=_run_name)
