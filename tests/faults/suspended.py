"""A flow run of a Prefect deployment, which the test executes as a worker does, whenever it is due."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES

from faults import suspending_flows as flows
from faults.attempts import Attempt, attempt, read_flow_run
from faults.tally import Tally
from prefect_langgraph.flows.resume import resumer_of
from prefect_langgraph.suspension.models import ResumeEntry, ResumeReport
from prefect_langgraph.suspension.record import PREFIX
from prefect_langgraph.transport.loop import io_loop
from proxy import Exchange, Fault, Proxy

GATED = {"tag": "a", "gate": True}
TAGS = [f"a-{number}" for number in range(flows.RUNS)]
GOOD = ["success"] * flows.RUNS
PARAMETER = {"langgraph-fan-out": "credentials", "langgraph-run-assistant": "assistant"}


def deployed(flow: Flow[..., Any], **parameters: Any) -> UUID:
    """A new flow run of a Prefect deployment of this flow."""
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(flow)
        deployment_id = client.create_deployment(flow_id, f"suspending-{uuid4().hex[:8]}")
        made = client.create_flow_run_from_deployment(deployment_id, parameters=parameters)
        return made.id


def one_pass(block: str | None = None, *, dry_run: bool = False) -> ResumeReport:
    """One pass of a resumer; with a block, its deployment is looked through in any case."""
    return io_loop().run(resumer_of(block, dry_run=dry_run).one_pass)


def entry_of(report: ResumeReport, flow_run_id: UUID) -> ResumeEntry | None:
    return next((one for one in report.entries if one.flow_run_id == str(flow_run_id)), None)


def records(flow_run_id: UUID) -> list[str]:
    """The names of the records among a flow run's inputs."""
    with get_client(sync_client=True) as client:
        found = client.filter_flow_run_input(flow_run_id, PREFIX, 100, set())
        return [one.key for one in found]


class Suspended:
    """A flow run of which the test executes each part.

    Args:
        tally: Of the LangGraph server.
        folder: Where the executions log.
        flow: The flow.
        parameters: The flow's, beside the block.
    """

    def __init__(self, tally: Tally, folder: Path, flow: Flow[..., Any], **parameters: Any) -> None:
        self.tally, self.folder, self.flow = tally, folder, flow
        block = PARAMETER.get(flow.name, "block")
        self.id = deployed(flow, **{block: tally.block}, **parameters)

    @property
    def row(self) -> FlowRun:
        return read_flow_run(self.id)

    @property
    def state(self) -> str | None:
        return self.row.state_name

    def executes(self) -> Any:
        return attempt(self.flow, self.id, self.folder)

    def suspends(self) -> Attempt:
        """Execute it once: it suspends, and its process ends."""
        with self.executes() as running:
            kind, value = running.outcome()
        assert (kind, value.partition(":")[0]) == ("error", "Pause"), f"{value}\n{running.log()}"
        assert self.state in ("Suspended", "Resuming")
        return running

    def ends(self) -> Any:
        """Execute it once: it comes to its end, and its hooks have run."""
        assert self.state in ("Scheduled", "Resuming"), self.state
        with self.executes() as running:
            result = running.result()
        assert self.state == "Completed"
        return result

    def resumed_when_over(self) -> None:
        """Let the runs end, and the resumer see it."""
        self.tally.open_gate()
        self.tally.settle()
        entry = entry_of(one_pass(), self.id)
        assert entry is not None
        assert entry.action == "resume"
        assert self.state == "Resuming"

    def click(self) -> None:
        """Press "Resume" in Prefect's UI."""
        with get_client(sync_client=True) as client:
            client.resume_flow_run(self.id)

    def once_and_nothing_left(self, tags: list[str] = TAGS) -> None:
        assert self.tally.executed == dict.fromkeys(tags, 1)
        assert self.tally.made == len(tags)
        self.tally.nothing_left()


Start = Callable[..., Suspended]


class OnceOf:
    """A fault for the first request in which a word is found."""

    def __init__(self, word: bytes, fault: Fault) -> None:
        self._word, self._fault = word, fault
        self.shown = False

    async def apply(self, exchange: Exchange) -> None:
        if not self.shown and self._word in exchange.request.body:
            self.shown = True
            await self._fault.apply(exchange)
        else:
            await exchange.relay()


def impatient_settings(proxy: Proxy) -> dict[Any, Any]:
    """Settings with which one failure of Prefect's is enough."""
    return {PREFECT_API_URL: f"{proxy.url}/api", PREFECT_CLIENT_MAX_RETRIES: 0}
