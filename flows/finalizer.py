"""`with_finalizer`: a flow run releases what it owns when it ends, however it ends."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar, overload
from uuid import UUID

from prefect import Flow, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound
from prefect.flows import FlowStateHook
from prefect.logging.loggers import flow_run_logger

from prefect_langgraph.arguments import check_positive
from prefect_langgraph.blocks.credentials import (
    DEFAULT_BLOCK,
    LangGraphCredentials,
    resolve,
    resolve_for,
)
from prefect_langgraph.cleanup.release import ReleaseReport, release_flow_run, sum_of
from prefect_langgraph.cleanup.report import emit_released, log_release
from prefect_langgraph.errors import InvalidRequestError, LangGraphError
from prefect_langgraph.logs import LoggerOrAdapter
from prefect_langgraph.ownership.heartbeat import DEFAULT_HEARTBEAT_SECONDS, Heartbeats
from prefect_langgraph.ownership.owner import Owner, prefect_api
from prefect_langgraph.ownership.tags import FINALIZER_MARK
from prefect_langgraph.suspension.suspended import suspend_again
from prefect_langgraph.transport.connection import Connection
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.deployment import deployment_for
from prefect_langgraph.transport.loop import Call, io_loop
from prefect_langgraph.transport.termination import releasing

F = TypeVar("F", bound=Flow[..., Any])
BlockRef = LangGraphCredentials | str | None
Connect = Callable[[Any], Awaitable[Connection]]

RELEASE_SECONDS = 60.0
SILENT_SECONDS = 3.0
"""How long a server that has just been silent gets to answer, before the rest is left to the sweep."""

ASK_SECONDS = 10.0
"""How long Prefect may take to tell a flow run's state, before the hook acts without it."""


@overload
def with_finalizer(credentials: F) -> F: ...
@overload
def with_finalizer(
    credentials: BlockRef | Sequence[BlockRef] = None,
    *,
    cancel_unfinished: bool = False,
    parameter: str | None = None,
    max_wait_seconds: float = RELEASE_SECONDS,
    lease_seconds: float = DEFAULT_HEARTBEAT_SECONDS,
) -> Callable[[F], F]: ...
def with_finalizer(
    credentials: Any = None,
    *,
    cancel_unfinished: bool = False,
    parameter: str | None = None,
    max_wait_seconds: float = RELEASE_SECONDS,
    lease_seconds: float = DEFAULT_HEARTBEAT_SECONDS,
) -> Any:
    """Make a flow's runs release what they own when they end: put it above `@flow`.

    When a flow run completes, fails, is cancelled or crashes, its crons are deleted, its active runs
    are cancelled and its throw-away threads are deleted, those of its subflows in the same process
    included. After a completion active runs are only named in a warning, unless
    `cancel_unfinished`; the `sweep` cancels them after its grace period, so use `detached=True` for
    runs that should outlive the flow run. A thread that waits for a person stays.

    A flow run that goes on (a retry, a suspension, a rescheduling) keeps everything until it really
    ends. Until then threads of finished runs stay too, so that a second execution of the flow run
    adopts them. When a subflow ends and its parent flow run may still be executed again, the threads
    of its finished runs stay for that execution.

    The hooks are added to those that the flow already has; `with_options(on_failure=...)` and the
    like replace hooks, these included. After a cancellation or a kill they run in a new process that
    imports the flow again, so give the name of a saved block; a block object must be created when the
    module is imported. What was done is in the flow run's log and in an event
    `langgraph.flow-run.released`, with the flow run as related resource. A release is safe to repeat,
    and beside a sweep. A step that fails is logged and the others go on; the sweep finds what is left.

    From the start of each execution the flow's process sends heartbeats to each of these deployments,
    by which the sweep learns that process and worker died together.

    Args:
        credentials: A saved block's name, a block, or a list of them, for every deployment that the
            flow uses. None: the block named `default`.
        cancel_unfinished: True also cancels active runs after a completion.
        parameter: The flow's own parameter that names the block, for flows that get it from their
            caller; if the caller gave none, its default counts. Used together with `credentials`, or
            alone when that is None.
        max_wait_seconds: How long the release may take, wall clock.
        lease_seconds: How long the flow run's process counts as alive after a heartbeat. Matters only
            when it dies together with its worker.

    Raises:
        InvalidRequestError: It decorates something that is not a flow, the flow does not have that
            parameter, or an argument is invalid.

    Example:
        >>> from prefect import flow
        >>> from prefect_langgraph import start_run, with_finalizer
        >>> @with_finalizer("default", cancel_unfinished=True)
        ... @flow
        ... def nightly() -> None:
        ...     start_run("worker", {"sleep": 600})
        >>> nightly()  # cancels the run as it ends
    """
    check_positive("max_wait_seconds", max_wait_seconds)
    check_positive("lease_seconds", lease_seconds)
    if isinstance(credentials, Flow):
        return with_finalizer()(credentials)
    return finalized(
        _blocks(credentials) if parameter is None or credentials is not None else [],
        parameter,
        cancel_unfinished=cancel_unfinished,
        max_wait_seconds=max_wait_seconds,
        lease_seconds=lease_seconds,
    )


def finalized(
    blocks: Sequence[BlockRef],
    parameter: str | None,
    *,
    connect: Connect | None = None,
    cancel_unfinished: bool = False,
    max_wait_seconds: float = RELEASE_SECONDS,
    lease_seconds: float = DEFAULT_HEARTBEAT_SECONDS,
) -> Callable[[F], F]:
    """What `with_finalizer` does, for this package's flows.

    Args:
        blocks: The blocks of the deployments that are known already.
        parameter: As in `with_finalizer`.
        connect: Turns a block, or the parameter's value, into a connection. Needed where the value does
            not name a `LangGraphCredentials`.
        cancel_unfinished: As in `with_finalizer`.
        max_wait_seconds: As in `with_finalizer`.
        lease_seconds: As in `with_finalizer`.
    """
    where = _Where(tuple(blocks), parameter, connect or connection_of)

    def decorate(flow: F) -> F:
        if not isinstance(flow, Flow):
            raise InvalidRequestError(
                f"with_finalizer got a {type(flow).__name__} and not a flow: put @with_finalizer(...) "
                "above @flow."
            )
        where.check(flow)
        release = _release_hook(
            where, cancel_unfinished=cancel_unfinished, max_wait_seconds=max_wait_seconds
        )
        setattr(release, FINALIZER_MARK, float(lease_seconds))
        # New lists: Prefect shares the given ones with other flows and with copies of this one.
        flow.on_completion_hooks = [*(flow.on_completion_hooks or ()), release]
        flow.on_failure_hooks = [*(flow.on_failure_hooks or ()), release]
        flow.on_cancellation_hooks = [*(flow.on_cancellation_hooks or ()), release]
        flow.on_crashed_hooks = [*(flow.on_crashed_hooks or ()), release]
        flow.on_running_hooks = [_heartbeat_hook(where, lease_seconds), *(flow.on_running_hooks or ())]
        return flow

    return decorate


@dataclass(frozen=True)
class _Where:
    """Which deployments a flow run uses.

    Attributes:
        blocks: The blocks that the decorator named.
        parameter: The flow's parameter that names one, or None.
        connect: Turns a block, or the parameter's value, into a connection.
    """

    blocks: tuple[BlockRef, ...]
    parameter: str | None
    connect: Connect

    def check(self, flow: Flow[..., Any]) -> None:
        names = list(inspect.signature(flow.fn).parameters)
        if self.parameter is not None and self.parameter not in names:
            raise InvalidRequestError(
                f"with_finalizer(parameter={self.parameter!r}): flow {flow.name!r} does not have that "
                f"parameter. It has {', '.join(names) or 'none'}."
            )

    def of(self, flow: Flow[..., Any], flow_run: FlowRun) -> list[Any]:
        """The blocks of a flow run."""
        if self.parameter is None:
            return [*self.blocks]
        # A Prefect deployment's flow run has only the parameters that were given; others have defaults.
        default = inspect.signature(flow.fn).parameters[self.parameter].default
        named = flow_run.parameters.get(
            self.parameter, None if default is inspect.Parameter.empty else default
        )
        return [*self.blocks, named]


def _blocks(credentials: Any) -> list[BlockRef]:
    given = list(credentials) if isinstance(credentials, list | tuple) else [credentials]
    blocks: list[BlockRef] = []
    for one in given:
        if isinstance(one, LangGraphCredentials):
            # The name survives into other processes, and no secret travels with it.
            blocks.append(one.saved_name or one)
        elif one is None or (isinstance(one, str) and one):
            blocks.append(one)
        else:
            raise InvalidRequestError(
                f"credentials holds a {type(one).__name__}: give the name of a saved "
                "LangGraphCredentials block, a block, a list of them, or None for 'default'."
            )
    if not blocks:
        raise InvalidRequestError("credentials is empty: name at least one block.")
    return blocks


def _release_hook(
    where: _Where, *, cancel_unfinished: bool, max_wait_seconds: float
) -> FlowStateHook[..., Any]:
    async def release_langgraph(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
        with releasing():
            await io_loop().arun(
                _release,
                where,
                flow,
                flow_run,
                cancel_runs=cancel_unfinished or not state.is_completed(),
                max_wait_seconds=max_wait_seconds,
            )

    return release_langgraph


def _heartbeat_hook(where: _Where, lease_seconds: float) -> FlowStateHook[..., Any]:
    def begin_langgraph_heartbeat(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
        begin_heartbeat(where, flow, flow_run, lease_seconds)

    return begin_langgraph_heartbeat


# A hook is pickled together with the globals it uses, so only functions of this module may use this.
_beginning: dict[UUID, Call[None]] = {}


def begin_heartbeat(
    where: _Where, flow: Flow[..., Any], flow_run: FlowRun, lease_seconds: float
) -> None:
    """Begin the heartbeat of the process of this execution, without keeping the flow waiting."""
    call = io_loop().begin(_begin_heartbeat, where, flow, flow_run, lease_seconds)
    _beginning[flow_run.id] = call

    def forget(_: Future[None]) -> None:
        if _beginning.get(flow_run.id) is call:
            del _beginning[flow_run.id]

    call.outcome.add_done_callback(forget)


async def _begin_heartbeat(
    where: _Where, flow: Flow[..., Any], flow_run: FlowRun, lease_seconds: float
) -> None:
    try:
        # The hook's own flow run object, with its count of attempts, is older than this execution.
        async with get_client() as client:
            row = await client.read_flow_run(flow_run.id)
        owner = await _owner(row, lease_seconds).with_root()
        for block in where.of(flow, row):
            deployment_for(await where.connect(block)).part(Heartbeats).begin(owner)
    except Exception as error:  # noqa: BLE001 - the flow itself goes on, and its first call tries again
        flow_run_logger(flow_run, flow).warning(
            "The heartbeat of this flow run could not begin yet (%s)", type(error).__name__
        )


async def _stop_beginning(flow_run_id: UUID, deadline: Deadline) -> None:
    """Prevent a heartbeat from beginning after the end."""
    call = _beginning.get(flow_run_id)
    if call is not None:
        call.cancel()
        await asyncio.wait([asyncio.wrap_future(call.outcome)], timeout=deadline.remaining())


def _owner(row: FlowRun, lease_seconds: float | None = None) -> Owner:
    return Owner(
        flow_run_id=str(row.id),
        attempt=row.run_count,
        # A flow run of a Prefect deployment that a parent started runs by itself: it is its own root.
        is_subflow=row.parent_task_run_id is not None and row.deployment_id is None,
        deployment_id=str(row.deployment_id) if row.deployment_id else None,
        api=prefect_api(),
        finalized=True,
        lease_seconds=lease_seconds,
    )


async def _release(
    where: _Where,
    flow: Flow[..., Any],
    flow_run: FlowRun,
    *,
    cancel_runs: bool,
    max_wait_seconds: float,
) -> None:
    deadline = Deadline.after(max_wait_seconds)
    logger = flow_run_logger(flow_run, flow)
    if await _goes_on(flow_run, logger, deadline):
        return
    await _stop_beginning(flow_run.id, deadline)
    keep_finished = await _may_be_adopted(flow_run, logger, deadline)
    blocks = where.of(flow, flow_run)

    async def release_at(block: Any) -> ReleaseReport:
        try:
            async with asyncio.timeout(deadline.remaining()):
                deployment = deployment_for(await where.connect(block))
                soon = deadline.no_later_than(SILENT_SECONDS)
                if not await deployment.answers_again(soon.remaining() or 0.1):
                    await deployment.part(Heartbeats).end(str(flow_run.id), deadline=soon)
                    silent = f"{deployment.url} does not answer. The sweep releases what is there."
                    return ReleaseReport(failures=(silent,))
                await deployment.part(Heartbeats).end(str(flow_run.id), deadline=deadline)
            return await release_flow_run(
                deployment,
                str(flow_run.id),
                cancel_runs=cancel_runs,
                keep_finished=keep_finished,
                deadline=deadline,
            )
        except LangGraphError as error:
            return ReleaseReport(failures=(error.message,))
        except TimeoutError:
            late = f"Prefect did not give the block within max_wait_seconds={max_wait_seconds:g}."
            return ReleaseReport(failures=(late,))

    reports = await asyncio.gather(*(release_at(block) for block in blocks))
    for block, report in zip(blocks, reports, strict=True):
        log_release(logger, _name(block), report, cancel_runs=cancel_runs)
    emit_released(flow_run.id, flow_run.name, sum_of(reports))


def _name(block: Any) -> str:
    if isinstance(block, LangGraphCredentials):
        return block.url
    if isinstance(block, Mapping):
        return str(block.get("url", "the block that was picked"))
    return block or DEFAULT_BLOCK


async def connection_of(block: Any) -> Connection:
    """The connection for a block as a hook finds it, in a decorator or a flow run's parameters."""
    # A block that was given as a flow's parameter comes back as its fields, the secrets masked. If it
    # was saved, its name is among them; otherwise the process of the flow still knows it.
    if isinstance(block, Mapping) and "url" in block:
        return await resolve_for(str(block["url"]), block.get("_block_document_name"), None)
    # A block that was picked in the UI comes as a reference.
    if isinstance(block, Mapping) and "$ref" in block:
        try:
            return await resolve(await LangGraphCredentials.aload_from_ref(block["$ref"]))
        except ValueError as error:
            raise LangGraphError("The block that was picked for the flow run is gone.") from error
    return await resolve(block)


def _ask_seconds(deadline: Deadline) -> float:
    # If Prefect does not answer, enough time must be left for the release itself.
    return min(ASK_SECONDS, (deadline.remaining() or 0) / 4)


async def _goes_on(flow_run: FlowRun, logger: LoggerOrAdapter, deadline: Deadline) -> bool:
    """True when Prefect says that the flow run has not ended: a hook may be late or called early."""
    try:
        async with asyncio.timeout(_ask_seconds(deadline)), get_client() as client:
            state = (await client.read_flow_run(flow_run.id)).state
            if state is not None and state.is_crashed() and await suspend_again(client, flow_run.id):
                logger.info("The process was killed after the flow run had suspended; it stays so")
                return True
    except ObjectNotFound:
        return False  # deleted, so it will not go on
    except Exception as error:  # noqa: BLE001 - whatever it is, Prefect just told that the run ended
        logger.warning(
            "Prefect could not be asked whether the flow run goes on (%s); it counts as ended",
            type(error).__name__,
        )
        return False
    if state is None or state.is_final() or state.is_cancelling():
        return False
    logger.info("The flow run is %s, so it keeps what it owns on LangGraph", state.name)
    return True


async def _may_be_adopted(flow_run: FlowRun, logger: LoggerOrAdapter, deadline: Deadline) -> bool:
    """True for a subflow that its parent flow run may execute again."""
    if flow_run.parent_task_run_id is None or flow_run.deployment_id is not None:
        return False
    owner = _owner(flow_run)
    try:
        async with asyncio.timeout(_ask_seconds(deadline)), get_client() as client:
            root = (await owner.with_root()).root
            if root is None or root[0] == str(flow_run.id):
                return False
            parent = await client.read_flow_run(UUID(root[0]))
    except ObjectNotFound:
        return False
    except Exception as error:  # noqa: BLE001 - keeping is safe: the sweep releases what is left
        logger.warning(
            "Prefect could not be asked about the parent flow run (%s); threads of finished "
            "runs stay for the sweep",
            type(error).__name__,
        )
        return True
    ended = parent.state is not None and parent.state.is_final()
    return not ended and (parent.empirical_policy.retries or 0) >= parent.run_count
