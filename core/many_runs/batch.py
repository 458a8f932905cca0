"""The runs of a batch, and how many of them go into one request."""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from prefect_langgraph.canonical import canonical, digest, off_loop
from prefect_langgraph.errors import (
    DeploymentError,
    InvalidRequestError,
    LangGraphError,
    NotFoundError,
    UnreachableError,
)
from prefect_langgraph.logs import run_logger
from prefect_langgraph.models import Origin, RunHandle
from prefect_langgraph.ownership.calls import check_same_call, record_of, record_of_many
from prefect_langgraph.ownership.claims import CallClaim, TakenOverError
from prefect_langgraph.ownership.keys import Key, call_ordinal, decide, key_for
from prefect_langgraph.ownership.owner import Owner
from prefect_langgraph.ownership.tags import BATCH, CALL, CLAIM, KEY
from prefect_langgraph.runs import outcomes
from prefect_langgraph.runs.call import Context
from prefect_langgraph.runs.lookup import Lookup
from prefect_langgraph.runs.poller import Poller
from prefect_langgraph.runs.request import RunRequest, with_webhook
from prefect_langgraph.runs.start import DOUBT_SECONDS, REPEATED_FAILURES, LastStart, Starter
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.deployment import (
    ANSWER_SECONDS,
    Deployment,
    InDoubtError,
    answer_to_abandoned,
)
from prefect_langgraph.transport.http_errors import failed_on_input
from prefect_langgraph.transport.paging import each, pages

CHUNK = 250

CHUNK_BYTES = 4_000_000


@dataclass
class Item:
    """One run to start.

    Attributes:
        index: Its place among the inputs.
        request: What to run.
        key: What makes a second attempt find it, or None.
        failures: How many runs of earlier attempts under this key have failed.
        handle: Set when it is started or adopted.
        error: Set when the server refused it.
    """

    index: int
    request: RunRequest
    key: Key | None = None
    failures: int = 0
    handle: RunHandle | None = None
    error: LangGraphError | None = None

    @property
    def resolved(self) -> bool:
        """True when it was started, adopted or refused."""
        return self.handle is not None or self.error is not None

    @property
    def text(self) -> str | None:
        """The key of the try that is due."""
        return self.key.after(self.failures) if self.key is not None else None


def chunks_of(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Requests of a bounded number of runs, bytes, and one set of headers."""
    chunk: list[Item] = []
    size = 0
    for item in items:
        more = len(canonical(item.request.arguments))
        full = len(chunk) >= CHUNK or size + more > CHUNK_BYTES
        if chunk and (full or chunk[0].request.headers != item.request.headers):
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += more
    if chunk:
        yield chunk


Found = dict[str, list[tuple[str, Mapping[str, Any]]]]
"""Thread ids and tags, by what an item is known by: its first key, or its mark."""


class BatchSearch:
    """Looks for the threads of one group of runs.

    Args:
        deployment: Where.
        group: What the runs have in their metadata as `prefect_batch`.
        deadline: The caller's.
    """

    def __init__(self, deployment: Deployment, group: str, deadline: Deadline) -> None:
        self._deployment = deployment
        self._group = group
        self._deadline = deadline

    async def by_mark(self) -> Found:
        """Every thread of the group that exists now, oldest first for each mark."""
        found: Found = {}
        threads = pages(
            self._deployment,
            partial(self._deployment.client.threads.search, metadata={BATCH: self._group}),
            "thread_id",
            doing="look for the runs of a batch",
            deadline=self._deadline,
            # Oldest first, so that pages stay put while more threads are made.
            options={
                "select": ["thread_id", "metadata"],
                "sort_by": "created_at",
                "sort_order": "asc",
            },
        )
        async for page in threads:
            for thread in page:
                metadata = thread.get("metadata") or {}
                if metadata.get(BATCH) == self._group:
                    key = metadata.get(KEY)
                    mark = key.partition(".")[0] if key is not None else str(metadata.get(CLAIM))
                    found.setdefault(mark, []).append((thread["thread_id"], metadata))
        return found


LANDING_SECONDS = 2.0
"""How long the server gets to act on a request whose answer was lost, before its runs are counted."""

_MOST_DOUBTS = 10

_UNKNOWN_PATH = (404, 405)

_NOT_IMPLEMENTED = 501
_FAILED = 500
_PARTS = 16


def _was_delayed(began: float) -> bool:
    """True when another process may have taken the call over meanwhile."""
    return time.monotonic() - began > LANDING_SECONDS / 2


class BatchSupport:
    """Whether a server has /runs/batch; False for good after the first answer that shows otherwise."""

    def __init__(self, _deployment: Deployment) -> None:
        self.supported = True


class BatchStarter:
    """Starts many runs on one deployment.

    Args:
        context: Deployment, owner and logger of the call.
        requests: What to run, in order.
        operation: The name of the task or flow.
        deadline: The caller's.
        idempotency_key: Replaces the keys derived from flow run and arguments.
        once: False for no keys.
        detached: True leaves the runs untagged, so that they outlive their flow run.
    """

    def __init__(
        self,
        context: Context,
        requests: Sequence[RunRequest],
        *,
        operation: str,
        deadline: Deadline,
        idempotency_key: str | None = None,
        once: bool = True,
        detached: bool = False,
    ) -> None:
        if idempotency_key is not None and not once:
            raise InvalidRequestError("idempotency_key and once=False exclude each other.")
        self._context = context
        self._deployment: Deployment = context.deployment
        self._operation = operation
        self._deadline = deadline
        self._idempotency_key = idempotency_key
        self._detached = detached
        self._once = once
        self._token = uuid.uuid4().hex
        self._group = self._token
        self._turn: CallClaim | None = None
        self._sent = False
        # Inputs to which the server has answered 500 when they were sent alone.
        self._suspects: list[Item] = []
        self._call_claims: list[str] = []
        self._doubtful: list[Item] = []
        self._search: BatchSearch | None = None
        self.items = [Item(index, request) for index, request in enumerate(requests)]

    # -- claiming the call -----------------------------------------------------------------------

    async def prepare(self) -> None:
        """Give each item its key, claim the call and adopt the runs of earlier attempts."""
        for headers in {tuple((item.request.headers or {}).items()) for item in self.items}:
            self._deployment.connection.check_headers(dict(headers))
        for item in self.items:
            with_webhook(item.request.payload, self._context.owner)  # refused before anything is sent
        requests = [item.request.arguments for item in self.items]
        base, keys = await off_loop(self._chosen, weigh=requests)
        if base is None:
            keys = await self._keys()
        if not keys:
            return
        for item, key in zip(self.items, keys, strict=True):
            item.key = key
        call = hashlib.sha256("".join(key.text for key in keys).encode()).hexdigest()[:32]
        root = self._context.owner.root
        chosen = base is not None or root is None
        self._group = call if chosen or root is None else root[0]
        self._turn = CallClaim(
            self._deployment,
            call,
            holder=self._token,
            deadline=self._deadline,
            chosen=base.text if base is not None else None,
            record=base.record if base is not None else None,
        )
        await self._turn.acquire(
            tags=self._context.owner.tags(owns_thread=True), doing=f"claim {len(self.items)} runs"
        )
        unknown = [item for item in self.items if item.handle is None]
        if self._turn.number:
            await self._resolve(unknown, "adopted", fresh=True)
        elif chosen or self._is_later_attempt:
            await self._adopt(unknown, "adopted", fresh=True)

    @property
    def _is_later_attempt(self) -> bool:
        """True when the caller, or a flow run around it, was executed before."""
        owner = self._context.owner
        attempts = [owner.root[1] if owner.root is not None else 1, owner.attempt]
        return max(*attempts, *(attempt for _, attempt in owner.scopes)) > 1

    def _chosen(self) -> tuple[Key | None, list[Key]]:
        """The key that the caller chose, and those of the items, each with what it is given for."""
        if self._idempotency_key is None:
            return None, []
        calls = [item.request.arguments for item in self.items]
        base = Key.chosen(self._idempotency_key, record=record_of_many(self._operation, calls))
        return base, [
            Key.chosen(f"{base.text}:{index}", record=record_of(self._operation, call))
            for index, call in enumerate(calls)
        ]

    async def _keys(self) -> list[Key]:
        owner = self._context.owner
        if not self._once or owner.root is None:
            return []
        calls = await off_loop(self._digests, weigh=[item.request.arguments for item in self.items])
        if not owner.remote:
            return [Key.derived(owner.root[0], call, call_ordinal(owner, call)) for call in calls]
        # Other processes of this attempt may start identical runs: the claim of the whole call
        # distinguishes them, and the runs of one call are counted here.
        whole = await key_for(
            self._deployment,
            owner,
            f"{self._operation} of many",
            {"calls": calls},
            idempotency_key=None,
            once=True,
            deadline=self._deadline,
        )
        seen: Counter[str] = Counter()
        keys: list[Key] = []
        for call in calls:
            text = whole.text if whole is not None else owner.root[0]
            keys.append(Key.derived(text, call, seen[call]))
            seen[call] += 1
        self._call_claims = [whole.claim_id] if whole is not None and whole.claim_id is not None else []
        return keys

    def _digests(self) -> list[str]:
        return [digest(self._operation, item.request.arguments) for item in self.items]

    async def _check_turn(self, sent: Sequence[Item] = ()) -> None:
        """Raise if another process has taken the call over; `sent` are items of a delayed request."""
        if self._turn is not None and await self._turn.is_lost():
            raise TakenOverError(
                f"Another process executes this flow run and has taken over its {len(self.items)} "
                "runs. This one starts no more.",
                late=await self._started_twice(sent) if sent else (),
            )

    async def _started_twice(self, items: Sequence[Item]) -> list[RunHandle]:
        """This process's runs of items that the process which took over has started too."""
        # That process may have searched already and be about to start them.
        await asyncio.sleep(LANDING_SECONDS)
        by_mark = await self._search_threads()
        found: list[RunHandle] = []
        for item in items:
            if item.handle is None or item.key is None:
                continue
            tries = by_mark.get(item.key.text, [])
            others = {thread_id for thread_id, tags in tries if tags.get(KEY) == item.text}
            if others - {item.handle.thread_id}:
                found.append(item.handle)
        return found

    @property
    def claim_ids(self) -> list[str]:
        """The claim threads of this call, to be released with its runs."""
        return (self._turn.claim_ids if self._turn is not None else []) + self._call_claims

    # -- sending ---------------------------------------------------------------------------------

    async def start(self, items: Sequence[Item]) -> None:
        """Start items. Each has a handle or an error afterwards, unless the deadline passed first."""
        waiting = [item for item in items if item.handle is None]
        weight = [item.request.arguments for item in waiting]
        for chunk in await off_loop(lambda: list(chunks_of(waiting)), weigh=weight):
            if self._deadline.passed:
                return
            if self._sent or (self._turn is not None and _was_delayed(self._turn.claimed_at)):
                await self._check_turn()
            self._sent = True
            began = time.monotonic()
            try:
                await self._start_chunk(chunk)
            except LangGraphError:
                if self._deadline.passed:
                    self._doubtful = [item for item in chunk if not item.resolved]
                raise
            if _was_delayed(began):
                await self._check_turn(sent=chunk)

    async def _start_chunk(self, chunk: Sequence[Item]) -> None:
        waiting = list(chunk)
        doubts, failures, began = 0, 0, time.monotonic()
        while waiting:
            if not self._deployment.part(BatchSupport).supported:
                await each(waiting, self._start_alone)
                return
            try:
                await self._send(waiting)
            except InDoubtError as doubt:
                doubts += 1
                failures = failures + 1 if doubt.status_code == _FAILED else 0
                await self._resolve_doubt(waiting)
                waiting = [item for item in waiting if item.handle is None]
                if failures and await self._isolate_failing(waiting, failures, began):
                    return
                if waiting and (self._deadline.passed or doubts > _MOST_DOUBTS):
                    raise doubt.cause if self._turn is not None else doubt.public() from None
            except DeploymentError as error:
                if error.status_code == _NOT_IMPLEMENTED:
                    self._deployment.part(BatchSupport).supported = False
                    continue
                await self._isolate_refused(waiting, error)
                return
            waiting = [item for item in waiting if item.handle is None]

    # -- inputs that the server fails on -----------------------------------------------------------

    async def _isolate_failing(self, items: Sequence[Item], failures: int, since: float) -> bool:
        """Find the inputs on which the server fails, if it starts others; False when it starts none.

        Args:
            items: Items that the server answered with 500 and did not start.
            failures: How often in a row it did.
            since: When they were sent first.
        """
        if len(items) == 1:
            others = self._deployment.part(LastStart).at > since
            if failures >= REPEATED_FAILURES and (others or failures > _MOST_DOUBTS):
                items[0].error = failed_on_input(self._doing(items), self._deployment.url)
            return items[0].error is not None
        self._suspects = []
        size = -(-len(items) // _PARTS)
        for start in range(0, len(items), size):
            part = items[start : start + size]
            if size == 1 or not await self._started(part):
                await each(part, self._start_or_suspect)
        suspects = [item for item in self._suspects if not item.resolved]
        if len(suspects) == len(items):
            # An outage, or each of them: an outage is given its time first.
            lasts = time.monotonic() - since > self._deployment.connection.patience_seconds
            if failures < REPEATED_FAILURES or not (lasts or failures > _MOST_DOUBTS):
                return False
            for item in suspects:
                item.error = failed_on_input(self._doing([item]), self._deployment.url)
            return True
        await each(suspects, self._send_alone)
        return True

    async def _started(self, items: Sequence[Item]) -> bool:
        """Send items once, on one of which the server may fail; True when it took or refused each."""
        try:
            await self._send(items)
        except InDoubtError as doubt:
            await self._resolve_doubt(items)
            if doubt.status_code != _FAILED:
                await self._start_chunk([item for item in items if item.handle is None])
                return True
        except DeploymentError as error:
            await self._isolate_refused(items, error)  # of one alone a server may say what is wrong
        return all(item.resolved for item in items)

    async def _start_or_suspect(self, item: Item) -> None:
        if item.handle is None and not await self._started([item]):
            self._suspects.append(item)

    async def _isolate_refused(self, items: Sequence[Item], error: DeploymentError) -> None:
        """Find which items of a refused request were started, and for which it was refused."""
        if error.status_code is None or error.status_code in (401, 403, 429):
            raise error
        if len(items) > 1:
            # The server may have started the valid items of this request.
            await self._resolve(items, "started")
            left = [item for item in items if item.handle is None]
            # The first of them tells whether the server knows batches at all.
            for part in (left[:1], left[1:]):
                await each(part, self._send_alone)
        elif error.status_code in _UNKNOWN_PATH:
            await self._start_alone(items[0])
            if items[0].error is None:
                self._deployment.part(BatchSupport).supported = False
        else:
            # Nothing was started: the request had only this item.
            items[0].error = error

    async def _resolve(self, items: Sequence[Item], origin: Origin, *, fresh: bool = False) -> None:
        """Adopt the items that were started; repeat while a request may still be starting more."""
        before = -1
        while (found := sum(item.handle is not None for item in items)) != before:
            before = found
            await asyncio.sleep(LANDING_SECONDS if fresh else LANDING_SECONDS / 2)
            await self._adopt([item for item in items if item.handle is None], origin, fresh=fresh)
            if all(item.handle is not None for item in items):
                return

    async def _send_alone(self, item: Item) -> None:
        await self._start_chunk([item])

    async def _start_alone(self, item: Item) -> None:
        """Start one item without a batch: this shows why it fails, or that only batches are unknown."""
        starter = Starter(
            self._deployment,
            item.request,
            owner=self._context.owner,
            detached=self._detached,
            key=item.key,
            thread_id=None,
            deadline=self._deadline,
            # A later attempt, which may send batches again, looks for runs by this.
            more_tags={BATCH: self._group},
        )
        try:
            item.handle = await starter.start()
        except (InvalidRequestError, NotFoundError) as error:
            item.error = error
        except asyncio.CancelledError:
            item.handle = starter.left_behind
            raise

    async def _send(self, items: Sequence[Item]) -> None:
        payloads: list[Any] = [self._payload(item) for item in items]
        headers = self._deployment.connection.headers_of_run(items[0].request.headers)
        runs = self._deployment.client.runs
        abandoned = asyncio.Event()
        sending = asyncio.create_task(
            self._deployment.send(
                lambda: runs.create_batch(payloads, headers=headers),
                doing=self._doing(items),
                deadline=self._deadline,
                hidden=[item.request.hidden for item in items],
                repeatable=False,
                abandoned=abandoned,
            )
        )
        try:
            rows = await asyncio.shield(sending)
        except asyncio.CancelledError:
            # Only the answer tells which runs the caller has to cancel.
            try:
                answer = await answer_to_abandoned(sending, abandoned)
                if answer is not None:
                    self._set_handles(items, answer)
            except InDoubtError:
                await self._resolve_abandoned(items)
            raise
        self._set_handles(items, rows)

    async def _resolve_doubt(self, items: Sequence[Item]) -> None:
        """Adopt the items that a request has started whose answer was lost."""
        try:
            await self._resolve(items, "started")
        except asyncio.CancelledError:
            await self._resolve_abandoned(items)
            raise

    async def look_for_doubtful(self) -> list[Item]:
        """Find what was started by a request whose answer was lost as the deadline passed."""
        items, self._doubtful = self._doubtful, []
        if items:
            self._deadline = Deadline.after(DOUBT_SECONDS)
            self._search = None
            await self._resolve_abandoned(items)
        return [item for item in items if item.handle is not None]

    async def _resolve_abandoned(self, items: Sequence[Item]) -> None:
        """Find what a request has started whose answer was lost, for a caller that has gone."""
        seconds = max(2 * ANSWER_SECONDS, self._deadline.remaining() or 0.0)
        try:
            async with asyncio.timeout(min(seconds, DOUBT_SECONDS)):
                await self._resolve(items, "started")
        except (TimeoutError, LangGraphError) as error:
            run_logger().warning("%d runs may be running: %s", len(items), error)

    def _set_handles(self, items: Sequence[Item], rows: Sequence[Mapping[str, Any]]) -> None:
        """Give each item the handle of the run that the server has started for it."""
        if len(rows) != len(items):
            raise InDoubtError(
                UnreachableError(
                    f"{self._deployment.url} was asked to start {len(items)} runs and reported "
                    f"{len(rows)}. A retry searches first for those that were started.",
                    url=self._deployment.url,
                )
            )
        for item, row in zip(items, rows, strict=True):
            origin: Origin = "restarted" if item.failures else "started"
            self._set_handle(item, row["run_id"], row["thread_id"], item.text, origin)
        self._deployment.part(LastStart).at = time.monotonic()

    def _doing(self, items: Sequence[Item]) -> str:
        first = items[0].request.assistant_id
        return f"start {len(items)} runs of {first}" if len(items) > 1 else f"start a run of {first}"

    def _payload(self, item: Item) -> dict[str, Any]:
        request = item.request
        return {
            **with_webhook(request.payload, self._context.owner),
            "assistant_id": request.assistant_id,
            "on_completion": "keep",
            "metadata": {**request.metadata, **self._tags(item)},
        }

    def _tags(self, item: Item) -> dict[str, Any]:
        owner = Owner() if self._detached else self._context.owner
        tags = owner.tags(key=item.text, owns_thread=True)
        tags[BATCH] = self._group
        if item.key is None:
            tags[CLAIM] = self._mark(item)
        else:
            tags |= self._context.owner.attempt_tag
            if item.key.record is not None:
                tags[CALL] = item.key.record
        return tags

    def _mark(self, item: Item) -> str:
        return f"{self._token}:{item.index}"

    def _set_handle(
        self, item: Item, run_id: str, thread_id: str, key: str | None, origin: Origin
    ) -> None:
        self._deployment.part(Poller).note_started(run_id)
        item.handle = self._deployment.handle(
            run_id,
            thread_id,
            item.request.assistant_id,
            key=key,
            owns_thread=True,
            origin=origin,
            item_key=item.request.item_key,
        )

    # -- adopting --------------------------------------------------------------------------------

    async def _search_threads(self) -> Found:
        if self._search is None:
            self._search = BatchSearch(self._deployment, self._group, self._deadline)
        return await self._search.by_mark()

    async def _adopt(self, items: Sequence[Item], origin: Origin, *, fresh: bool = False) -> None:
        """Give a handle to each item whose run exists.

        Args:
            items: Those to search for.
            origin: How the runs came to exist.
            fresh: True counts failed runs, which belong to earlier attempts, and does not adopt them,
                except a run of this very attempt from before its flow run was suspended.
        """
        by_mark = await self._search_threads()

        async def one(item: Item) -> None:
            mark = item.key.text if item.key is not None else self._mark(item)
            for thread_id, tags in by_mark.get(mark, []):
                await self._adopt_one(item, thread_id, tags, origin, fresh)

        await each(items, one)

    def _is_outcome(self, item: Item, run_id: str, tags: Mapping[str, Any]) -> bool:
        """True for a failed run of this attempt from before its flow run was suspended."""
        if not self._context.owner.made_before_suspension(tags):
            return False
        # Another call of this process with the same key asks for another attempt.
        chosen = item.key is not None and item.key.is_chosen
        return not chosen or not self._deployment.part(Poller).was_started_here(run_id)

    async def _adopt_one(
        self, item: Item, thread_id: str, tags: Mapping[str, Any], origin: Origin, fresh: bool
    ) -> None:
        if item.key is not None:
            check_same_call(item.key.record, tags)
        newest = await self._deployment.part(Lookup).newest_runs(thread_id, self._deadline)
        if not newest:
            return
        run, key = newest[-1], tags.get(KEY)
        number = int((key or "").partition(".")[2] or 0)
        if fresh and decide(outcomes.RUN_STATUSES[run["status"]]) == "restart":
            if number >= item.failures and self._is_outcome(item, run["run_id"], tags):
                self._set_handle(item, run["run_id"], thread_id, key, origin)
            elif number >= item.failures:
                item.handle = None
            item.failures = max(item.failures, number + 1)
        elif fresh or key == item.text:
            self._set_handle(item, run["run_id"], thread_id, key, origin)
