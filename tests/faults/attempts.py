"""Executions of a flow run in processes of their own, which tests kill.

A process is forked from one that has imported everything already, so that one takes a second and not
ten. It does what a worker's process does: reads its flow run from Prefect and runs it.
"""

from __future__ import annotations

import asyncio
import inspect
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from support.waiting import PATIENCE, until

_TESTS = Path(__file__).parent.parent

SETTINGS = {setting.name: setting for setting in (PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES)}

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["faults.attempts", "faults.flows", "faults.suspending_flows"])


def begin() -> None:
    """Start the process that others are forked from."""
    # Python 3.11 does not give it the path by which the modules to import would be found.
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_TESTS), before]))
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def new_flow_run(flow: Flow[..., Any], **parameters: Any) -> UUID:
    """A flow run that waits to be executed."""
    with get_client(sync_client=True) as client:
        return client.create_flow_run(flow, parameters=parameters).id


def read_flow_run(flow_run_id: UUID) -> FlowRun:
    """The flow run, as Prefect knows it."""
    with get_client(sync_client=True) as client:
        return client.read_flow_run(flow_run_id)


class Attempt:
    """One execution of a flow run. Made by `attempt`."""

    def __init__(
        self, flow: Flow[..., Any], flow_run_id: UUID, log: Path, settings: Mapping[str, Any]
    ) -> None:
        self._mine, self._its = _processes.Pipe()
        self._log = log
        self.process = _processes.Process(
            target=_execute,
            args=(flow.fn.__module__, flow.fn.__name__, flow_run_id, self._its, log, dict(settings)),
            daemon=True,
        )
        self.process.start()
        self._its.close()

    def kill(self) -> None:
        """End it at once, by SIGKILL."""
        self.process.kill()
        self.process.join(PATIENCE)

    def outcome(self) -> tuple[str, Any]:
        """How the flow ended, after its hooks: `value` with what it returned, or `error`."""
        assert self._mine.poll(PATIENCE), f"no result in {PATIENCE} s:\n{self.log()}"
        try:
            found: tuple[str, Any] = self._mine.recv()
        except EOFError:
            raise AssertionError(f"the process died:\n{self.log()}") from None
        self.process.join(PATIENCE)
        return found

    def result(self) -> Any:
        """What the flow returned, after its hooks."""
        kind, value = self.outcome()
        assert kind == "value", f"{value}\n{self.log()}"
        return value

    def wait_for_log(self, *words: str) -> None:
        """Wait until it has logged one of these."""
        until(lambda: any(word in self.log() for word in words))

    def log(self) -> str:
        """What it printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-8000:]

    def close(self) -> None:
        self.kill()
        self._mine.close()
        self.process.close()


@contextmanager
def attempt(
    flow: Flow[..., Any], flow_run_id: UUID, folder: Path, settings: Mapping[str, Any] | None = None
) -> Iterator[Attempt]:
    """Execute a flow run in a process of its own, which may have Prefect settings of its own."""
    begin()
    number = len(list(folder.glob("attempt-*.log"))) + 1
    log = folder / f"attempt-{number}.log"
    log.touch()
    running = Attempt(flow, flow_run_id, log, settings or {})
    try:
        yield running
    finally:
        running.close()


def _execute(
    module: str,
    name: str,
    flow_run_id: UUID,
    answer: Connection,
    log: Path,
    settings: dict[str, Any],
) -> None:
    # Prefect has found its stderr before this process was forked.
    with log.open("ab") as file:
        for standard in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), standard.fileno())
    flow = getattr(import_module(module), name)
    # What a shell starts in the background ignores it, and so do all that come after.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with temporary_settings({SETTINGS[name]: value for name, value in settings.items()}):
            value = run_flow(flow, flow_run=read_flow_run(flow_run_id))
            if inspect.iscoroutine(value):
                value = asyncio.run(value)  # in the main OS thread, as Prefect's own process has it
    except BaseException as error:
        answer.send(("error", f"{type(error).__name__}: {error}"))
        raise
    answer.send(("value", value))
