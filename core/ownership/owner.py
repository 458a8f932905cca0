"""The flow run and task run for which something is created on a deployment.

Invariant: everything a flow run creates carries its tags; the finalizer and the sweep go by them alone.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_API_URL
from pydantic import SecretStr

from prefect_langgraph.ownership.tags import (
    API,
    ATTEMPT,
    DEPLOYMENT_ID,
    FINALIZER_MARK,
    FLOW_RUN_ID,
    KEY,
    OWNS_THREAD,
    ROOT_FLOW_RUN_ID,
    TASK_RUN_ID,
)

REMEMBERED_FLOW_RUNS = 1000

caller_task_run: ContextVar[tuple[str, int] | None] = ContextVar("caller_task_run", default=None)
"""Id and attempt of the task run that one of our tasks was called from."""


@dataclass(frozen=True)
class Owner:
    """The flow run and task run on whose behalf something is created.

    Attributes:
        flow_run_id: The flow run, or None outside of any.
        attempt: Which execution of the flow run this is, from 1.
        is_subflow: True when the flow run was called by another flow of its process.
        task_run_id: The innermost task run, or None.
        scopes: What repeats as a whole, innermost first: the task run, the task run that called it, the
            subflow run; each with its attempt.
        deployment_id: The flow run's deployment, or None.
        api: A short hash of the Prefect API's address and workspace.
        in_pool: True in a process other than the flow run's own, such as one of a process pool.
        remote: True where other processes may make identical calls in the same attempt: in a pool, and
            in a subflow that a task called, since that task may be in one.
        finalized: True when the flow run releases what it owns at its end.
        lease_seconds: How long its process counts as alive without a sign of life; None: no heartbeat.
        root: Id and attempt of the flow run that a subflow belongs to; None until looked up.
        suspensions: How often that flow run was suspended and resumed in this attempt, before its
            process began. Being resumed is not another attempt.
    """

    flow_run_id: str | None = None
    attempt: int = 1
    is_subflow: bool = False
    task_run_id: str | None = None
    scopes: tuple[tuple[str, int], ...] = ()
    deployment_id: str | None = None
    api: str | None = None
    in_pool: bool = False
    remote: bool = False
    finalized: bool = False
    lease_seconds: float | None = None
    root: tuple[str, int] | None = None
    suspensions: int = 0

    async def with_root(self) -> Owner:
        """This owner with its root flow run, which for a subflow is asked of Prefect."""
        if self.flow_run_id is None or self.root is not None:
            return self
        own = (self.flow_run_id, self.attempt)
        if not self.is_subflow:
            return replace(self, root=own)
        root, in_task, suspensions = await _root_of(own)
        return replace(self, root=root, remote=self.remote or in_task, suspensions=suspensions)

    @property
    def tries(self) -> tuple[int, int]:
        """The attempt of the flow run at the top, and the retries of tasks and subflows within it."""
        attempt = self.root[1] if self.root is not None else self.attempt
        return attempt, sum(number - 1 for _, number in self.scopes)

    def made_before_suspension(self, tags: Mapping[str, Any]) -> bool:
        """True of a run that this very try made, before the flow run was suspended and resumed.

        What became of it is the outcome of the try, also when it failed: starting another one would
        repeat what was not asked for again, at every resumption.
        """
        return bool(self.suspensions) and self.made_in_this_try(tags)

    def made_in_this_try(self, tags: Mapping[str, Any]) -> bool:
        """True of a run that this very try of the flow run has made."""
        root, _, made = str(tags.get(ATTEMPT)).partition(":")
        if self.root is None or root != self.root[0]:
            return False
        attempt, retries = self.tries
        made_attempt, made_retries = (int(number) for number in made.split("."))
        return made_attempt == attempt and made_retries >= retries

    @property
    def attempt_tag(self) -> dict[str, str]:
        """What tells a later execution which try made a run; also on one that outlives its owner."""
        if self.root is None:
            return {}
        attempt, retries = self.tries
        return {ATTEMPT: f"{self.root[0]}:{attempt}.{retries}"}

    def tags(self, *, key: str | None = None, owns_thread: bool = False) -> dict[str, Any]:
        """Metadata for what this owner creates. Outside a flow run only the key is set."""
        found: dict[str, Any] = {KEY: key} if key is not None else {}
        if owns_thread:
            found[OWNS_THREAD] = True
        if self.flow_run_id is None:
            return found
        found |= {FLOW_RUN_ID: self.flow_run_id, API: self.api}
        if self.root is not None and self.root[0] != self.flow_run_id:
            found[ROOT_FLOW_RUN_ID] = self.root[0]
        if self.task_run_id is not None:
            found[TASK_RUN_ID] = self.task_run_id
        if self.deployment_id is not None:
            found[DEPLOYMENT_ID] = self.deployment_id
        if key is not None:
            found |= self.attempt_tag
        return found


def current_owner() -> Owner:
    """The owner in the caller's Prefect context."""
    flow_context, task_context = FlowRunContext.get(), TaskRunContext.get()
    flow_run = flow_context.flow_run if flow_context is not None else None
    if flow_context is None or flow_run is None:
        return Owner()
    flow_run_id = str(flow_run.id)
    # A flow run that a parent started as a deployment runs by itself: it is a root of its own.
    is_subflow = flow_run.parent_task_run_id is not None and flow_run.deployment_id is None
    task_run = task_context.task_run if task_context is not None else None
    if task_run is not None and task_run.flow_run_id != flow_run.id:
        task_run = None  # the task that called this subflow, and not ours
    scopes: list[tuple[str, int]] = []
    if task_run is not None:
        scopes.append((str(task_run.id), task_run.run_count))
    caller = caller_task_run.get()
    if caller is not None and caller not in scopes:
        scopes.append(caller)
    if is_subflow:
        scopes.append((flow_run_id, flow_run.run_count))
    flow = flow_context.flow
    hooks = (flow.on_completion_hooks if flow is not None else None) or []
    marks = [getattr(hook, FINALIZER_MARK) for hook in hooks if hasattr(hook, FINALIZER_MARK)]
    return Owner(
        flow_run_id=flow_run_id,
        attempt=flow_run.run_count,
        is_subflow=is_subflow,
        task_run_id=str(task_run.id) if task_run is not None else None,
        scopes=tuple(scopes),
        deployment_id=str(flow_run.deployment_id) if flow_run.deployment_id else None,
        api=prefect_api(),
        in_pool=flow_context.detached,
        remote=flow_context.detached,
        finalized=bool(marks),
        lease_seconds=marks[0] if marks else None,
        suspensions=_suspensions(flow_run),
    )


def _suspensions(flow_run: FlowRun) -> int:
    # Prefect forgets the keys when the flow run ends, so they are those of this attempt.
    return len(flow_run.empirical_policy.pause_keys or ())


_roots: OrderedDict[tuple[str, int], tuple[tuple[str, int], bool, int]] = OrderedDict()


async def _root_of(flow_run: tuple[str, int]) -> tuple[tuple[str, int], bool, int]:
    """Id and attempt of the flow run at the top, whether a task is on the way, its suspensions."""
    if flow_run not in _roots:
        in_task = False
        async with get_client() as client:
            row = await client.read_flow_run(uuid.UUID(flow_run[0]))
            while row.parent_task_run_id is not None and row.deployment_id is None:
                parent = await client.read_task_run(row.parent_task_run_id)
                in_task = in_task or bool(parent.task_inputs.get("__parents__"))
                if parent.flow_run_id is None:
                    break
                row = await client.read_flow_run(parent.flow_run_id)
        _roots[flow_run] = (str(row.id), row.run_count), in_task, _suspensions(row)
        while len(_roots) > REMEMBERED_FLOW_RUNS:
            _roots.popitem(last=False)
    return _roots[flow_run]


def prefect_address() -> str:
    """The address of Prefect's API, for messages: without a password that may be in it."""
    parts = urlsplit(PREFECT_API_URL.value() or "")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.netloc else "-"


def prefect_api() -> str:
    """A short hash of the Prefect API's address and workspace, equal in all of its processes."""
    address = PREFECT_API_URL.value()
    if address:
        parts = urlsplit(address)
        place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}{parts.path.rstrip('/')}"
    else:
        # Prefect's temporary server: its database is what its processes share.
        database = PREFECT_API_DATABASE_CONNECTION_URL.value()
        # A text in Prefect 3.8, a secret where the setting is read as its model has it.
        place = str(database.get_secret_value() if isinstance(database, SecretStr) else database or "")
    return hashlib.sha256(place.encode()).hexdigest()[:12]
