"""What makes a second attempt find a run of the first.

Invariants:
- Everything a flow run creates carries its tags; the finalizer and the sweep go by them alone.
- A key depends on the root flow run, the operation, its arguments and an ordinal, and on nothing that
  a second execution of the flow run would change. Headers are not part of it: tokens are renewed.
- The k-th identical call of an attempt has ordinal k. A retry of a task gets the ordinal it had, so it
  meets its own run again; identical calls are interchangeable.
- Where several processes make the calls of one attempt, each call claims its ordinal on the server
  (see `key_for`). Those keys are apart from the counted ones, since the flow's own process counts too.
"""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, Literal

from prefect_langgraph.arguments import check_text
from prefect_langgraph.canonical import digest, off_loop
from prefect_langgraph.errors import InvalidRequestError
from prefect_langgraph.models import RunStatus
from prefect_langgraph.ownership.calls import record_of
from prefect_langgraph.ownership.claims import holder_of
from prefect_langgraph.ownership.owner import REMEMBERED_FLOW_RUNS, Owner
from prefect_langgraph.ownership.tags import thread_id_of
from prefect_langgraph.transport.deadline import NO_DEADLINE, Deadline
from prefect_langgraph.transport.deployment import Deployment

_CLAIMED = "claimed-"


Adoption = Literal["start", "adopt", "restart"]


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
        """The name by which a call claims its ordinal, and the known owners of the first ordinals.

        The caller keeps the list up to date. The arguments are those of `ordinal`.
        """
        with self._lock:
            table = self._table(owner)
            return table.count(call, owner).claimant, table.holders.setdefault(call, [])

    def _table(self, owner: Owner) -> _Table:
        root = owner.root or ("", 0)
        table = self._tables.setdefault(root, _Table())
        self._tables.move_to_end(root)
        while len(self._tables) > REMEMBERED_FLOW_RUNS:
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
        claim_id: The thread by which this call claimed its ordinal among several processes, or None.
        is_chosen: True for the caller's own, which several calls of an attempt may share.
        record: What a chosen key is given for (see `calls`), or None.
    """

    text: str
    claim_id: str | None = None
    is_chosen: bool = False
    record: str | None = None

    @classmethod
    def chosen(cls, idempotency_key: str, *, record: str | None = None) -> Key:
        """The key for an `idempotency_key=` of the caller's."""
        if not isinstance(idempotency_key, str) or not idempotency_key:
            raise InvalidRequestError("idempotency_key: give a text that is not empty, or None.")
        check_text("idempotency_key", idempotency_key)
        text = hashlib.sha256(b"chosen\0" + idempotency_key.encode()).hexdigest()[:32]
        return cls(text, is_chosen=True, record=record)

    @classmethod
    def derived(cls, root_flow_run_id: str, call: str, ordinal: int) -> Key:
        """The key of the call with this digest and ordinal."""
        text = f"{root_flow_run_id}\0{call}\0{ordinal}"
        return cls(hashlib.sha256(text.encode()).hexdigest()[:32])

    @classmethod
    def claimed(
        cls, root_flow_run_id: str, call: str, ordinal: int, attempt: int, suspensions: int = 0
    ) -> Key:
        """The key of the call that has claimed this ordinal in an execution of an attempt."""
        text = _CLAIMED + cls.derived(root_flow_run_id, call, ordinal).text
        return cls(text, claim_id=_claim_id(text, attempt, suspensions))

    @staticmethod
    def claim_ids(text: str, attempts: int) -> list[str]:
        """The threads by which a key's ordinal was claimed in the attempts so far."""
        base = text.partition(".")[0]
        if not base.startswith(_CLAIMED):
            return []
        return [_claim_id(base, attempt) for attempt in range(1, attempts + 1)]

    def after(self, failures: int) -> str:
        """The key's text for the try after so many failed ones."""
        return self.text if failures == 0 else f"{self.text}.{failures}"


def call_ordinal(owner: Owner, call: str) -> int:
    """Which of the identical calls of its attempt in this process this one is, from 0."""
    return _ordinals.ordinal(owner, call)


def call_claimant(owner: Owner, call: str) -> tuple[str, list[str]]:
    """The name by which a call claims its ordinal, and the known holders: see `Ordinals.claimant`."""
    return _ordinals.claimant(owner, call)


def _claim_id(text: str, attempt: int, suspensions: int = 0) -> str:
    # A flow run that was resumed makes the same calls again, and each is to get the ordinal it had.
    execution = f"{attempt}:resumed:{suspensions}" if suspensions else str(attempt)
    return thread_id_of(f"{text}:attempt:{execution}")


def decide(status: RunStatus | None) -> Adoption:
    """What to do about the run found under a key: a failed one is never adopted."""
    if status is None:
        return "start"
    if status in (RunStatus.ERROR, RunStatus.TIMEOUT, RunStatus.CANCELLED, RunStatus.LOST):
        return "restart"
    return "adopt"


async def key_for(
    deployment: Deployment,
    owner: Owner,
    operation: str,
    arguments: Mapping[str, Any],
    *,
    idempotency_key: str | None,
    once: bool,
    deadline: Deadline = NO_DEADLINE,
) -> Key | None:
    """The key of a call, or None when nothing is to find it again.

    Args:
        deployment: Where claims are made.
        owner: With its root looked up.
        operation: The name of the task.
        arguments: What makes two calls identical.
        idempotency_key: The caller's own key, which replaces the derived one.
        once: False for no key at all.
        deadline: The caller's.
    """
    if idempotency_key is not None:
        if not once:
            raise InvalidRequestError("idempotency_key and once=False exclude each other.")
        record = await off_loop(partial(record_of, operation, arguments), weigh=arguments)
        return Key.chosen(idempotency_key, record=record)
    if not once or owner.root is None:
        return None
    call = await off_loop(partial(digest, operation, arguments), weigh=arguments)
    root_id = owner.root[0]
    if not owner.remote:
        return Key.derived(root_id, call, call_ordinal(owner, call))
    return await _claimed(deployment, owner, owner.root, call, deadline)


async def _claimed(
    deployment: Deployment, owner: Owner, root: tuple[str, int], call: str, deadline: Deadline
) -> Key | None:
    """The key with the first ordinal that no other call of this attempt has."""
    claimant, holders = call_claimant(owner, call)
    # Those that are known to be taken are not asked for again: that would be a request for each pair
    # of identical calls.
    first = holders.index(claimant) if claimant in holders else len(holders)
    for ordinal in count(first):
        key = Key.claimed(root[0], call, ordinal, root[1], owner.suspensions)
        holder = await holder_of(
            deployment,
            str(key.claim_id),
            claimant=claimant,
            tags=owner.tags(owns_thread=True),
            doing="claim a number among identical calls",
            deadline=deadline,
        )
        if ordinal == len(holders):
            holders.append(holder)
        if holder == claimant:
            return key
    return None
