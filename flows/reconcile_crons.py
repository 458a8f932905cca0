"""`reconcile_crons_flow`: crons as desired state, as a flow to deploy."""

# No annotations from __future__: `.serve()` pickles a flow without the names of its annotations.

from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from prefect_langgraph.blocks.credentials import LangGraphCredentials
from prefect_langgraph.crons.models import CronPlan
from prefect_langgraph.tasks.reconcile import reconcile_crons, reconcile_name


def _name() -> str:
    return reconcile_name(flow_run.parameters.get("owner"), flow_run.parameters.get("specs"))


@flow(name="langgraph-reconcile-crons", flow_run_name=_name)
def reconcile_crons_flow(
    specs: str | list[dict[str, Any]],
    *,
    owner: str | None = None,
    prune: bool = True,
    dry_run: bool = False,
    credentials: LangGraphCredentials | str | None = None,
) -> CronPlan:
    """Make an owner's crons on the deployment match a file or a list.

    `prefect.yaml` deploys this flow with `examples/crons.yaml`. Safe to run again, on a schedule or
    after each merge: a cron that matches already is left alone. See `reconcile_crons` for what happens.

    Args:
        specs: The path of a YAML or JSON file, or a list of objects with the fields of `CronSpec`.
        owner: The owner of the crons. None: the owner that the file names.
        prune: False leaves the owner's crons that are not in `specs`.
        dry_run: True changes nothing and shows the plan.
        credentials: A saved block's name, or None for the block named `default`. A block works too:
            picked in the UI, or in a flow that is called.

    Returns:
        What was done, or would be; also a table artifact of the flow run.

    Raises:
        ScheduleError: Schedules cannot be expressed as Deploy crons; nothing was changed.
        InvalidRequestError: Specifications are invalid otherwise; nothing was changed.
        DeploymentError: A change failed; the others were made.

    Example:
        >>> from prefect_langgraph import reconcile_crons_flow
        >>> digest = {"name": "digest", "assistant_id": "answer", "schedule": "0 9 * * 1-5"}
        >>> plan = reconcile_crons_flow([digest], owner="docs", dry_run=True)
        >>> plan.applied
        False
    """
    return reconcile_crons(specs, owner=owner, prune=prune, dry_run=dry_run, credentials=credentials)
