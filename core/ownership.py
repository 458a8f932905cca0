"""Who a run belongs to, and what makes a second attempt find it.

Invariants:
- Everything a flow run creates carries its tags; the finalizer and the sweep go by them alone.
- A key depends on the root flow run, the operation, its arguments and an ordinal, and on nothing that
  a second execution of the flow run would change. Headers are not part of it: tokens are renewed.
- The k-th identical call of an attempt has ordinal k. A retry of a task gets the ordinal it had, so it
  meets its own run again; identical calls are interchangeable.
- Where several processes make the calls of one attempt, each call claims its ordinal on the server
  (see `_keys`). Those keys are apart from the counted ones, since the flow's own process counts too.
"""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import urlsplit

import orjson
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext, TaskRunContext
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_API_URL
from pydantic import SecretStr

from prefect_langgraph.errors import InvalidRequestError
from prefect_langgraph.models import RunStatus

FLOW_RUN_ID = "prefect_flow_run_id"
ROOT_FLOW_RUN_ID = "prefect_root_flow_run_id"
TASK_RUN_ID = "prefect_task_run_id"
DEPLOYMENT_ID = "prefect_deployment_id"
API = "prefect_api"
KEY = "prefect_key"
OWNS_THREAD = "prefect_owns_thread"
CLAIM = "prefect_claim"
BATCH = "prefect_batch"
TARGET_THREAD = "prefect_target_thread_id"
"""On a claim: the caller's thread that its run is on, where runs cannot be searched for by tags."""
NO_ANSWER = "prefect_no_answer"
"""On a throw-away thread that stopped at an interrupt: its call is over, so nobody will answer."""
TAG_PREFIX = "prefect_"

FINALIZER_MARK = "prefect_langgraph_finalizer"
"""Attribute of the hooks that `with_finalizer` adds, by which a task knows that it is under one.

Its value is how many seconds without a sign of life end the flow run's leases.
"""

_CLAIMED = "claimed-"
_NAMESPACE = uuid.UUID("3f0ad0c2-7d35-5d0a-9a55-3a3f0c6c4c51")
_REMEMBERED_FLOW_RUNS = 1000

Adoption = Literal["start", "adopt", "restart"]

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
        lease_seconds: How long its process counts as alive without a sign of life; None keeps no lease.
        root: Id and attempt of the flow run that a subflow belongs to; None until looked up.
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

    async def with_root(self) -> Owner:
        """This owner with its root flow run, which for a subflow is asked of Prefect."""
        if self.flow_run_id is None or self.root is not None:
            return self
        own = (self.flow_run_id, self.attempt)
        if not self.is_subflow:
            return replace(self, root=own)
        root, in_task = await _root_of(own)
        return replace(self, root=root, remote=self.remote or in_task)

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
    )


_roots: OrderedDict[tuple[str, int], tuple[tuple[str, int], bool]] = OrderedDict()


async def _root_of(flow_run: tuple[str, int]) -> tuple[tuple[str, int], bool]:
    """Id and attempt of the flow run at the top, and whether a task is on the way down from it."""
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
        _roots[flow_run] = (str(row.id), row.run_count), in_task
        while len(_roots) > _REMEMBERED_FLOW_RUNS:
            _roots.popitem(last=False)
    return _roots[flow_run]


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


def canonical(value: Any) -> bytes:
    """Canonical JSON: equal values give equal bytes.

    Raises:
        TypeError: A value is not JSON.
    """
    return orjson.dumps(value, default=_plain, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)


def _plain(value: Any) -> Any:
    """What the SDK also accepts beside JSON: pydantic models and sets."""
    if hasattr(value, "model_dump") and not isinstance(value, type):
        return value.model_dump()
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    raise TypeError(f"Type is not JSON serializable: {type(value).__name__}")


def digest(operation: str, arguments: Mapping[str, Any]) -> str:
    """Equal for identical calls."""
    return hashlib.sha256(operation.encode() + b"\0" + canonical(arguments)).hexdigest()


@dataclass(frozen=True)
class _Counted:
    ordinal: int
    claimant: str


@dataclass
class _Table:
    """The calls of one attempt of one flow run."""

    counts: dict[tuple[str, str, int], int] = field(default_factory=dict)
    slots: dict[tuple[str, str, int], _Counted] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)
    holders: dict[str, list[str]] = field(default_factory=dict)

    def count(self, call: str, owner: Owner) -> _Counted:
        found: _Counted | None = None
        unknown: list[tuple[str, str, int]] = []
        for scope_id, attempt in owner.scopes:
            count = self.counts.get((call, scope_id, attempt), 0)
            self.counts[call, scope_id, attempt] = count + 1
            slot = (call, scope_id, count)
            found = self.slots.get(slot)
            if found is not None:
                break
            unknown.append(slot)
        if found is None:
            ordinal = self.used.get(call, 0)
            self.used[call] = ordinal + 1
            found = _Counted(ordinal, _claimant(unknown[:-1] if owner.is_subflow else unknown))
        for slot in unknown:
            self.slots[slot] = found
        return found


def _claimant(slots: list[tuple[str, str, int]]) -> str:
    """The name of a call that no other call has, in whatever process.

    The outermost task run came into this process from the one that submitted it, and runs in one
    process at a time. Should Dask give it to another since the first is gone, its calls are the same.
    """
    if not slots:
        return uuid.uuid4().hex
    _, task_run_id, count = slots[-1]
    return f"{task_run_id}:{count}"


class Ordinals:
    """Counts identical calls, for every flow run of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tables: OrderedDict[tuple[str, int], _Table] = OrderedDict()

    def ordinal(self, owner: Owner, call: str) -> int:
        """Which of the identical calls of its attempt this one is, from 0.

        Args:
            owner: With its root looked up.
            call: The digest of the call.
        """
        with self._lock:
            return self._table(owner).count(call, owner).ordinal

    def claimant(self, owner: Owner, call: str) -> tuple[str, list[str]]:
        """By what name a call claims its ordinal, and who is known to hold the first ordinals.

        The list is for its user to keep up to date. The arguments are those of `ordinal`.
        """
        with self._lock:
            table = self._table(owner)
            return table.count(call, owner).claimant, table.holders.setdefault(call, [])

    def _table(self, owner: Owner) -> _Table:
        root = owner.root or ("", 0)
        table = self._tables.setdefault(root, _Table())
        self._tables.move_to_end(root)
        while len(self._tables) > _REMEMBERED_FLOW_RUNS:
            self._tables.popitem(last=False)
        return table


_ordinals = Ordinals()


def _after_fork_in_child() -> None:
    global _ordinals
    _ordinals = Ordinals()


os.register_at_fork(after_in_child=_after_fork_in_child)


@dataclass(frozen=True)
class Key:
    """What makes a second attempt find what the first created.

    Attributes:
        text: The key of the first try; later tries, after a failure, have a number behind a dot.
        place: The thread by which this call claimed its ordinal among several processes, or None.
    """

    text: str
    place: str | None = None

    @classmethod
    def chosen(cls, idempotency_key: str) -> Key:
        """The key for an `idempotency_key=` of the caller's."""
        if not isinstance(idempotency_key, str) or not idempotency_key:
            raise InvalidRequestError("idempotency_key: give a text that is not empty, or None.")
        return cls(hashlib.sha256(b"chosen\0" + idempotency_key.encode()).hexdigest()[:32])

    @classmethod
    def derived(cls, root_flow_run_id: str, call: str, ordinal: int) -> Key:
        """The key of the call with this digest and ordinal."""
        text = f"{root_flow_run_id}\0{call}\0{ordinal}"
        return cls(hashlib.sha256(text.encode()).hexdigest()[:32])

    @classmethod
    def claimed(cls, root_flow_run_id: str, call: str, ordinal: int, attempt: int) -> Key:
        """The key of the call that has claimed this ordinal in an attempt."""
        text = _CLAIMED + cls.derived(root_flow_run_id, call, ordinal).text
        return cls(text, place=_place_of(text, attempt))

    @staticmethod
    def places_of(text: str, attempts: int) -> list[str]:
        """The threads by which a key's ordinal was claimed in the attempts so far."""
        base = text.partition(".")[0]
        if not base.startswith(_CLAIMED):
            return []
        return [_place_of(base, attempt) for attempt in range(1, attempts + 1)]

    def after(self, failures: int) -> str:
        """The key's text for the try after so many failed ones."""
        return self.text if failures == 0 else f"{self.text}.{failures}"


def call_ordinal(owner: Owner, call: str) -> int:
    """Which of the identical calls of its attempt in this process this one is, from 0."""
    return _ordinals.ordinal(owner, call)


def call_claimant(owner: Owner, call: str) -> tuple[str, list[str]]:
    """The name by which a call claims its ordinal, and the known holders: see `Ordinals.claimant`."""
    return _ordinals.claimant(owner, call)


def _place_of(text: str, attempt: int) -> str:
    return thread_id_of(f"{text}:attempt:{attempt}")


def thread_id_of(key: str) -> str:
    """The id of the thread that belongs to a key: its dedicated thread, or its claim."""
    return str(uuid.uuid5(_NAMESPACE, key))


def decide(status: RunStatus | None) -> Adoption:
    """What to do about the run found under a key: a failed one is never adopted."""
    if status is None:
        return "start"
    if status in (RunStatus.ERROR, RunStatus.TIMEOUT, RunStatus.CANCELLED, RunStatus.LOST):
        return "restart"
    return "adopt"
