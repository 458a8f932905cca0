"""Starting one run once.

Every keyed call first claims a thread whose id follows from the key: of all who try, the server lets
exactly one create it. The winner knows that nobody started the run before. The others, and a caller
that never got the answer, look: a live or successful run is adopted, a failed one counts and the next
claim is tried, and where there is no run yet the claimant gets a moment before another starts the run
instead.

A claimant that was held up may thus start a run as well. So both, the one that was held up and the one
that started the run instead, look again after the start: the oldest run under the key stays, and the
other is cancelled by the caller that started it.

Invariants:
- A run is created on a dedicated thread only with `multitask_strategy="reject"`.
- A look-up that fails raises; it never leads to a second run.
- What was created for a run that the server refused is deleted again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any, Literal

from prefect_langgraph.errors import DeploymentError, NotFoundError, ThreadBusyError
from prefect_langgraph.logs import run_logger
from prefect_langgraph.models import Origin, RunHandle
from prefect_langgraph.ownership.calls import check_same_call
from prefect_langgraph.ownership.claims import ClaimThreads, claim
from prefect_langgraph.ownership.keys import Key, decide
from prefect_langgraph.ownership.owner import Owner
from prefect_langgraph.ownership.pruning import Pruner
from prefect_langgraph.ownership.tags import CALL, CLAIM, KEY, TARGET_THREAD, thread_id_of
from prefect_langgraph.runs import outcomes
from prefect_langgraph.runs.poller import Poller
from prefect_langgraph.runs.request import (
    RunRequest,
    check_answer,
    is_strict,
    open_interrupts,
    with_webhook,
)
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.deployment import (
    ANSWER_SECONDS,
    Deployment,
    InDoubtError,
    answer_to_abandoned,
)
from prefect_langgraph.transport.http_errors import failed_on_input
from prefect_langgraph.transport.paging import pages

CLAIM_GRACE_SECONDS = 3.0
"""How long the owner of a claim has to start its run before another starts it instead."""

DOUBT_SECONDS = 30.0
"""How long a run is looked for whose start was not answered before the deadline."""

REPEATED_FAILURES = 3
"""So often in a row a 500 is the answer to an input before the input is blamed for it."""

_HELD_UP_SECONDS = CLAIM_GRACE_SECONDS / 2

_LOOK_EVERY_SECONDS = 0.1

_RUNS_PAGE = 200


def _adopts(run: Mapping[str, Any]) -> bool:
    return decide(outcomes.RUN_STATUSES[run["status"]]) == "adopt"


def _held_up(began: float) -> bool:
    """True when so much time has passed that another may have started the run instead."""
    return time.monotonic() - began > _HELD_UP_SECONDS


class LastStart:
    """When a run was last started on a deployment, by anybody: it was there then."""

    def __init__(self, _deployment: Deployment) -> None:
        self.at = 0.0


class Starter:
    """Starts one run, on a thread of its own or on the caller's.

    Args:
        deployment: Where.
        request: What.
        owner: For the tags.
        detached: True leaves the run untagged, so that it outlives the owner.
        key: None starts without looking for an earlier attempt's run.
        thread_id: The caller's thread, or None for a dedicated one.
        deadline: The caller's.
        more_tags: Beside the owner's.

    Attributes:
        left_behind: The run that was started for a caller that was cancelled; the caller cancels it.
        in_doubt: True when the deadline passed while it was unknown whether a run was started.
    """

    def __init__(
        self,
        deployment: Deployment,
        request: RunRequest,
        *,
        owner: Owner,
        detached: bool,
        key: Key | None,
        thread_id: str | None,
        deadline: Deadline,
        more_tags: Mapping[str, Any] | None = None,
    ) -> None:
        self._deployment = deployment
        self._request = request
        self._more_tags = dict(more_tags or {})
        self._owner = owner
        self._detached = detached
        self._key = key
        self._user_thread_id = thread_id
        self._deadline = deadline
        self.left_behind: RunHandle | None = None
        self.in_doubt = False
        self._doubtful: tuple[str, str | None] | None = None
        self._claim_id: str | None = None
        self._failures = 0
        self._failed_since = 0.0
        self._token = uuid.uuid4().hex
        self._doubt_since: float | None = None
        self._doing = f"start a run of {request.assistant_id}"
        self._doing_thread = f"create a thread for {request.assistant_id}"

    @property
    def leaves_trace(self) -> bool:
        """True when only a thread beside the caller's can show who owns the run."""
        owned = self._owner.flow_run_id is not None and not self._detached
        return self._user_thread_id is not None and owned

    def _tags(self, key: str | None, *, owns_thread: bool) -> dict[str, Any]:
        owner = Owner() if self._detached else self._owner
        tags = owner.tags(key=key, owns_thread=owns_thread)
        if self._key is not None and self._key.record is not None:
            tags[CALL] = self._key.record
        return {**tags, **(self._owner.attempt_tag if key is not None else {}), **self._more_tags}

    async def start(self) -> RunHandle:
        """Start the run or adopt the one that is there.

        A caller that is cancelled sends nothing that starts a run after that.
        """
        try:
            return await (self._start() if self._key is not None else self._start_without_key())
        except asyncio.CancelledError:
            if self.left_behind is None:
                await self._release_claim()
            raise

    async def _release_claim(self) -> None:
        """Delete the thread by which this call claimed its run, since it has none."""
        if self._claim_id is None:
            return
        deadline = Deadline.after(ANSWER_SECONDS)
        try:
            found = await self._deployment.thread(self._claim_id, deadline)
            if found is not None and (found.get("metadata") or {}).get(CLAIM) == self._token:
                await self._deployment.part(Pruner).prune([self._claim_id])
        except DeploymentError as error:
            run_logger().warning("Thread %s may stay: %s", self._claim_id, error)

    async def _start(self) -> RunHandle:
        assert self._key is not None  # noqa: S101 - by start
        failures = 0
        while True:
            text = self._key.after(failures)
            dedicated = thread_id_of(text)
            thread_id = self._user_thread_id or dedicated
            self._claim_id = dedicated
            began = time.monotonic()
            claimed = await claim(
                self._deployment,
                dedicated,
                holder=self._token,
                tags=self._thread_tags(text),
                doing=self._doing_thread,
                deadline=self._deadline,
                call=self._key.record,
            )
            found: Mapping[str, Any] | Literal["again"] | None = None
            if not claimed:
                found = await self._wait_for_claimant(thread_id, dedicated, text)
            elif _held_up(began):
                found = await self._find(thread_id, text)
            if found == "again":
                continue
            if found is not None:
                check_same_call(self._key.record, found.get("metadata"))
                if _adopts(found) or await self._is_outcome(found, self._key, failures):
                    self._deployment.part(Poller).note_started(found["run_id"])
                    return self._handle(thread_id, found["run_id"], text, "adopted")
                failures += 1
                continue
            run_id, created = await self._create(thread_id, dedicated, text)
            if run_id is None:
                continue
            if created and (not claimed or _held_up(began)):
                self.left_behind = self._handle(thread_id, run_id, text, "started")
                run_id, created = await self._cancel_unless_oldest(thread_id, run_id, text)
            self._deployment.part(Poller).note_started(run_id)
            origin: Origin = "adopted" if not created else "restarted" if failures else "started"
            return self._handle(thread_id, run_id, text, origin)

    async def _is_outcome(self, run: Mapping[str, Any], key: Key, failures: int) -> bool:
        """True of a failed run that is what this try came to before its flow run was suspended."""
        if not self._owner.made_before_suspension(run.get("metadata") or {}):
            return False
        if key.is_chosen:
            # Another call of this process that gives the same key asks for another try.
            return not self._deployment.part(Poller).was_started_here(run["run_id"])
        later = thread_id_of(key.after(failures + 1))
        return await self._deployment.thread(later, self._deadline) is None

    async def _start_without_key(self) -> RunHandle:
        dedicated = str(uuid.uuid4())
        thread_id = self._user_thread_id or dedicated
        if self._user_thread_id is None or self.leaves_trace:
            self._claim_id = dedicated
            await self._create_thread(dedicated)
        run_id = None
        while run_id is None:
            run_id, _ = await self._create(thread_id, dedicated, None)
        self._deployment.part(Poller).note_started(run_id)
        if self.leaves_trace:
            self._deployment.part(ClaimThreads).add(run_id, [dedicated])
        return self._handle(thread_id, run_id, None, "started")

    def _handle(self, thread_id: str, run_id: str, key: str | None, origin: Origin) -> RunHandle:
        return self._deployment.handle(
            run_id,
            thread_id,
            self._request.assistant_id,
            key=key,
            owns_thread=self._user_thread_id is None,
            origin=origin,
        )

    # -- claims ----------------------------------------------------------------------------------

    async def _pause_or_raise(self, doubt: InDoubtError) -> None:
        """Pause after a lost answer; raise when doubts have lasted for too long."""
        now = time.monotonic()
        self._doubt_since = self._doubt_since or now
        patience = self._deployment.connection.patience_seconds
        if self._deadline.passed or now - self._doubt_since > patience:
            raise doubt.cause
        await asyncio.sleep(min(_LOOK_EVERY_SECONDS + (now - self._doubt_since) / 4, 2.0))

    def _thread_tags(self, key: str | None) -> dict[str, Any]:
        if self._user_thread_id is None:
            return self._tags(key, owns_thread=True)
        # The claim goes with the flow run even where the run does not.
        tags = self._owner.tags(key=key, owns_thread=True)
        if not self._detached:
            tags[TARGET_THREAD] = self._user_thread_id
        return tags

    async def _create_thread(self, thread_id: str) -> None:
        threads = self._deployment.client.threads
        metadata = {**self._thread_tags(None), CLAIM: self._token}
        await self._deployment.send(
            lambda: threads.create(thread_id=thread_id, if_exists="do_nothing", metadata=metadata),
            doing=self._doing_thread,
            deadline=self._deadline,
        )

    async def _wait_for_claimant(
        self, thread_id: str, claim_id: str, key: str | None
    ) -> Mapping[str, Any] | Literal["again"] | None:
        """The run under another's claim; None when this call is to start it.

        `again` when the claim was released meanwhile.
        """
        grace_ends: float | None = None
        while True:
            found = await self._find(thread_id, key)
            if found is not None:
                return found
            if grace_ends is None:
                if await self._deployment.thread(claim_id, self._deadline) is None:
                    return "again"
                grace_ends = time.monotonic() + CLAIM_GRACE_SECONDS
            if time.monotonic() >= grace_ends:
                return None
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    async def _find(
        self, thread_id: str, key: str | None, deadline: Deadline | None = None
    ) -> Mapping[str, Any] | None:
        """The newest run of this key."""
        async for run in self._runs_under(thread_id, key, deadline):
            return run
        return None

    async def _runs_under(
        self, thread_id: str, key: str | None, deadline: Deadline | None = None
    ) -> AsyncIterator[Mapping[str, Any]]:
        """The runs of this key, newest first; none when there is no such thread."""
        found = pages(
            self._deployment,
            partial(self._deployment.client.runs.list, thread_id),
            "run_id",
            doing=f"look for a run of {self._request.assistant_id}",
            deadline=deadline or self._deadline,
            size=_RUNS_PAGE,
        )
        with contextlib.suppress(NotFoundError):
            async for page in found:
                for run in page:
                    if self._is_under(key, run.get("metadata") or {}):
                        yield run

    async def _cancel_unless_oldest(self, thread_id: str, run_id: str, key: str) -> tuple[str, bool]:
        """The run that stays of all under the key, and whether it is this call's own."""
        found = [run async for run in self._runs_under(thread_id, key)]
        alive = [run for run in found if _adopts(run)]
        if not any(run["run_id"] == run_id for run in alive):
            return run_id, True
        oldest = min(alive, key=lambda run: (str(run.get("created_at")), run["run_id"]))
        if oldest["run_id"] == run_id:
            return run_id, True
        runs = self._deployment.client.runs
        # Not found: it has ended meanwhile.
        with contextlib.suppress(NotFoundError):
            await self._deployment.send(
                lambda: runs.cancel(thread_id, run_id),
                doing=f"cancel run {run_id}, since another process has started {oldest['run_id']}",
                deadline=self._deadline,
            )
        run_logger().warning(
            "Another process has started run %s for the same call; our run %s was cancelled",
            oldest["run_id"],
            run_id,
        )
        return oldest["run_id"], False

    def _is_under(self, key: str | None, metadata: Mapping[str, Any]) -> bool:
        if key is None:
            # A thread that only this call knows has no run but its own.
            return self._user_thread_id is None or metadata.get(CLAIM) == self._token
        return metadata.get(KEY) == key

    # -- the run ---------------------------------------------------------------------------------

    async def _create(self, thread_id: str, claim_id: str, key: str | None) -> tuple[str | None, bool]:
        """Create the run: its id, and whether this call did. No id: begin again."""
        dedicated = self._user_thread_id is None
        runs, request = self._deployment.client.runs, self._request
        options = with_webhook(request.payload, self._owner)
        if dedicated:
            options["multitask_strategy"] = "reject"
        if is_strict(request.payload):
            # Between this look and the start, somebody else may answer.
            options.setdefault("multitask_strategy", "reject")
            await self._check_answer(claim_id, key)
        metadata = {**request.metadata, **self._tags(key, owns_thread=dedicated)}
        if key is None and not dedicated:
            # Nothing else would tell this run from another when the answer is lost.
            metadata[CLAIM] = self._token
        if not dedicated:
            # It may be the thread of an earlier run's own, whose question this one answers.
            self._deployment.part(Poller).note_shared(thread_id)
        headers = self._deployment.connection.headers_of_run(request.headers)
        abandoned = asyncio.Event()
        sending = asyncio.create_task(
            self._deployment.send(
                lambda: runs.create(
                    thread_id,
                    request.assistant_id,
                    metadata=metadata,
                    headers=headers,
                    **options,
                ),
                doing=f"{self._doing} on thread {thread_id}",
                deadline=self._deadline,
                hidden=request.hidden,
                repeatable=False,
                abandoned=abandoned,
            )
        )
        try:
            run_id = (await asyncio.shield(sending))["run_id"]
        except InDoubtError as doubt:
            return await self._find_despite_doubt(thread_id, claim_id, key, doubt), True
        except DeploymentError as error:
            return await self._refused(error, thread_id, claim_id, key), False
        except asyncio.CancelledError:
            await self._note_left_behind(sending, abandoned, thread_id, key)
            raise
        self._deployment.part(LastStart).at = time.monotonic()
        return run_id, True

    async def _check_answer(self, claim_id: str, key: str | None) -> None:
        """Refuse an answer that the caller's thread does not wait for."""
        payload, threads = self._request.payload, self._deployment.client.threads
        state: Mapping[str, Any] | None = None
        try:
            if (thread_id := self._user_thread_id) is not None:
                with contextlib.suppress(*self._may_be_missing):
                    state = await self._deployment.send(
                        lambda: threads.get_state(
                            thread_id,
                            checkpoint=payload.get("checkpoint"),
                            checkpoint_id=payload.get("checkpoint_id"),
                        ),
                        doing=f"ask what thread {thread_id} waits for",
                        deadline=self._deadline,
                        quotes=False,
                    )
            waiting = open_interrupts(state)
            check_answer(payload["command"]["resume"], waiting, thread_id or claim_id)
        except DeploymentError:
            await self._release_refused(claim_id, key)
            raise

    @property
    def _may_be_missing(self) -> tuple[type[DeploymentError], ...]:
        """What says that there is no thread, where the server is to create it with the run."""
        return (NotFoundError,) if self._request.payload.get("if_not_exists") == "create" else ()

    async def _note_left_behind(
        self,
        sending: asyncio.Task[Any],
        abandoned: asyncio.Event,
        thread_id: str,
        key: str | None,
    ) -> None:
        """Learn what came of a create whose caller was cancelled: only that tells what to cancel."""
        run_id: str | None = None
        try:
            answer = await answer_to_abandoned(sending, abandoned)
            run_id = answer["run_id"] if answer is not None else None
        except InDoubtError:
            run_id = await self._last_look(thread_id, key)
        if run_id is not None:
            self.left_behind = self._handle(thread_id, run_id, key, "started")

    async def look_for_doubtful(self) -> RunHandle | None:
        """The run of a start whose answer was lost as the deadline passed; None when there is none.

        Raises:
            DeploymentError: The server does not tell.
        """
        assert self._doubtful is not None  # noqa: S101 - by in_doubt
        thread_id, key = self._doubtful
        ends = Deadline.after(DOUBT_SECONDS)
        found = await self._find(thread_id, key, ends)
        seen = time.monotonic()
        # The request may still be on its way through the server, which has answered now.
        while found is None and time.monotonic() - seen < CLAIM_GRACE_SECONDS and not ends.passed:
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
            found = await self._find(thread_id, key, ends)
        if found is None:
            await self._release_claim()
            return None
        return self._handle(thread_id, found["run_id"], key, "started")

    async def _last_look(self, thread_id: str, key: str | None) -> str | None:
        """The run of a create request whose answer was lost and whose caller was cancelled."""
        ends = Deadline.after(ANSWER_SECONDS)
        try:
            while (found := await self._find(thread_id, key, ends)) is None:
                if self._user_thread_id is None or ends.passed:
                    # Its thread is deleted next: what arrives after that starts nothing.
                    return None
                await asyncio.sleep(_LOOK_EVERY_SECONDS)
        except DeploymentError as error:
            run_logger().warning("A run on thread %s may be running: %s", thread_id, error)
            return None
        run_id: str = found["run_id"]
        return run_id

    async def _find_despite_doubt(
        self, thread_id: str, claim_id: str, key: str | None, doubt: InDoubtError
    ) -> str | None:
        """The run whose answer was lost, or None when the server did not take it.

        Raises:
            InvalidRequestError: The server fails on this input, and not on others.
        """
        try:
            found = await self._find(thread_id, key)
            if found is None and self._fails_on_input(doubt):
                await self._release_refused(claim_id, key)
                raise failed_on_input(self._doing, self._deployment.url)
            if found is None:
                # The request may still be on its way through the server.
                await self._pause_or_raise(doubt)
                found = await self._find(thread_id, key)
        except asyncio.CancelledError:
            if (run_id := await self._last_look(thread_id, key)) is not None:
                self.left_behind = self._handle(thread_id, run_id, key, "started")
            raise
        except DeploymentError:
            if self._deadline.passed:
                self.in_doubt, self._doubtful = True, (thread_id, key)
            raise
        return found["run_id"] if found is not None else None

    def _fails_on_input(self, doubt: InDoubtError) -> bool:
        """Whether the input is at fault: a 500 each time, while the server answers all else.

        That others were started meanwhile tells soon; else an outage is given its time first.
        """
        now = time.monotonic()
        if doubt.status_code != 500:
            self._failures, self._failed_since = 0, now
            return False
        self._failed_since = now if not self._failures else self._failed_since
        self._failures += 1
        lasts = now - self._failed_since > self._deployment.connection.patience_seconds
        others = self._deployment.part(LastStart).at > self._failed_since
        return self._failures >= REPEATED_FAILURES and (others or lasts)

    async def _release_refused(self, claim_id: str, key: str | None) -> None:
        """Delete the thread that was made for a run that the server refused."""
        if key is not None or self._user_thread_id is None:
            await self._deployment.part(Pruner).prune([claim_id])

    async def _refused(
        self, error: DeploymentError, thread_id: str, claim_id: str, key: str | None
    ) -> str | None:
        """What to do when the server said no: adopt the run that was in the way, or raise."""
        if error.status_code == 409 and (key is not None or self._user_thread_id is None):
            found = await self._find(thread_id, key)
            if found is not None and (_adopts(found) or self._user_thread_id is None):
                run_id: str = found["run_id"]
                return run_id
            if self._user_thread_id is None:
                # Refused for a run that is not there: not for ever, and not without a pause.
                await self._pause_or_raise(InDoubtError(error))
                return None
        await self._release_refused(claim_id, key)
        if error.status_code == 409:
            raise ThreadBusyError(
                f"Thread {thread_id} has a run in flight, so no run of "
                f"{self._request.assistant_id} was "
                "started. Wait for it, or choose multitask_strategy='enqueue', 'interrupt' or "
                "'rollback'.",
                status_code=409,
                url=self._deployment.url,
            )
        raise error
