"""What a flow run left on the server, by the server's own word."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx
from langgraph_sdk.client import SyncLangGraphClient
from langgraph_sdk.errors import NotFoundError

from support.waiting import until as until

FOREVER = {"sleep": 600}
YEARLY = "0 0 1 1 *"


@dataclass(frozen=True)
class Left:
    """Ids of what carries a flow run's tags."""

    threads: list[str]
    runs: list[str]
    crons: list[str]

    def __bool__(self) -> bool:
        return bool(self.threads or self.runs or self.crons)


def left_by(client: SyncLangGraphClient, flow_run_id: object) -> Left:
    """The throw-away threads, active runs and crons of a flow run and of its subflows."""
    threads, crons = {}, {}
    for name in ("prefect_flow_run_id", "prefect_root_flow_run_id"):
        tags = {name: str(flow_run_id)}
        threads |= {row["thread_id"]: row for row in client.threads.search(metadata=tags, limit=1000)}
        crons |= {row["cron_id"]: row for row in client.crons.search(metadata=tags, limit=1000)}
    places = set(threads) | {
        row["metadata"].get("prefect_target_thread_id") for row in threads.values()
    }
    runs = [run for place in places if place for run in active_runs(client, place)]
    owned = [i for i, row in threads.items() if row["metadata"].get("prefect_owns_thread")]
    return Left(owned, runs, list(crons))


def active_runs(client: SyncLangGraphClient, thread_id: str) -> list[str]:
    """The runs of a thread that have not ended; none when it was deleted meanwhile."""
    try:
        found = client.runs.list(thread_id, limit=100)
    except NotFoundError:
        return []
    return [run["run_id"] for run in found if run["status"] in ("pending", "running")]


def logs_of(api_url: str, flow_run_id: object) -> str:
    """A flow run's log so far, one message per line."""
    body = {"logs": {"flow_run_id": {"any_": [str(flow_run_id)]}}, "limit": 200}
    rows = httpx.post(f"{api_url}/logs/filter", json=body).raise_for_status().json()
    return "\n".join(row["message"] for row in rows)


def events_named(api_url: str, name: str, flow_run_id: object) -> list[dict[str, Any]]:
    """The events of this name that are related to a flow run."""
    wanted = {"event": {"name": [name]}, "occurred": {"since": "2020-01-01T00:00:00Z"}}
    answer = httpx.post(f"{api_url}/events/filter", json={"filter": wanted, "limit": 50})
    rows: list[dict[str, Any]] = answer.raise_for_status().json()["events"]
    return [row for row in rows if str(flow_run_id) in json.dumps(row["related"])]
