"""What was made on the server, what was executed there, and what remains."""

from __future__ import annotations

from collections import Counter
from copy import copy
from pathlib import Path
from typing import Any

from langgraph_sdk.client import SyncLangGraphClient

from proxy import Proxy
from support.waiting import until

RUN = r"/threads/[^/]+/runs$"
BATCH = r"/runs/batch$"
THREAD = r"/threads$"
PRUNE = r"/threads/prune$"
CANCEL = r"/runs/[^/]+/cancel$"
CRON = r"/runs/crons$"


class Tally:
    """Counts on the real server, for one test.

    Attributes:
        block: The saved block that leads to the proxy in front of the server.
    """

    def __init__(self, proxy: Proxy, client: SyncLangGraphClient, executions: Path, block: str) -> None:
        self.proxy = proxy
        self.client = client
        self.block = block
        self._executions = executions
        self._write("begin")

    def _lines(self) -> list[str]:
        text = self._executions.read_text(encoding="utf-8")
        lines = text.rpartition("begin\n")[2].splitlines()
        return [line for line in lines if " " in line]

    def _write(self, line: str) -> None:
        with self._executions.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def beside(self, proxy: Proxy, block: str) -> Tally:
        """The same server seen through another proxy."""
        other = copy(self)
        other.proxy, other.block = proxy, block
        return other

    def open_gate(self) -> None:
        """Let runs that wait behind a gate go on, and those to come."""
        self._write("open")

    @property
    def made(self) -> int:
        """How many runs the server took, whether or not somebody was told."""
        single = len(self.proxy.done("POST", RUN))
        return single + sum(len(request.json) for request in self.proxy.done("POST", BATCH))

    @property
    def crons_made(self) -> int:
        """How many crons the server took."""
        return len(self.proxy.done("POST", CRON))

    @property
    def executed(self) -> Counter[str]:
        """How often each tag was executed."""
        return Counter(line.partition(" ")[2] for line in self._lines())

    @property
    def execution_ids(self) -> list[str]:
        """The run of each execution."""
        return [line.partition(" ")[0] for line in self._lines()]

    def wait_for_execution(self, tag: str) -> None:
        """Wait until the graph has begun."""
        until(lambda: self.executed[tag])

    def threads(self) -> list[dict[str, Any]]:
        """Every thread of the server."""
        return [dict(thread) for thread in self.client.threads.search(limit=1000)]

    def user_thread(self) -> str:
        """A thread of a user's own, which stays."""
        return str(self.client.threads.create(metadata={"users_own": True})["thread_id"])

    def remaining(self) -> list[dict[str, Any]]:
        """The threads that are no user's own."""
        return [thread for thread in self.threads() if not (thread["metadata"] or {}).get("users_own")]

    def active(self) -> list[str]:
        """The runs that are not done."""
        found: list[str] = []
        for thread in self.threads():
            for run in self.client.runs.list(thread["thread_id"], limit=100):
                if run["status"] in ("pending", "running"):
                    found.append(run["run_id"])
        return found

    def settle(self) -> None:
        """Wait until the server is at rest."""
        until(lambda: not self.active())

    def nothing_left(self) -> None:
        """Assert that no run is active and that no throw-away thread and no cron remain."""
        left = self.remaining()
        assert [(thread["status"], thread["metadata"]) for thread in left] == []
        assert self.active() == []
        assert self.client.crons.search(limit=1000) == []

    def clear(self) -> None:
        """Delete everything on the server."""
        for cron in self.client.crons.search(limit=1000):
            self.client.crons.delete(cron["cron_id"])
        if ids := [thread["thread_id"] for thread in self.threads()]:
            self.client.threads.prune(ids)
