"""A morning of flow runs for a browser to look at: research, an assistant, crons and a sweep.

    python typical_runs.py ADDRESS_OF_THE_LANGGRAPH_SERVER

Runs in a process of its own, with PREFECT_API_URL in its environment, and prints the flow runs as JSON.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from typing import Any

from langgraph_sdk import get_sync_client
from prefect import flow
from prefect.client.schemas.objects import State

from prefect_langgraph import (
    LangGraphAssistant,
    LangGraphCredentials,
    create_thread,
    cron_window,
    join_run,
    join_runs,
    reconcile_crons_flow,
    run_assistant,
    run_on_thread,
    run_stateless,
    start_run,
    start_runs,
    sweep,
)
from prefect_langgraph.flows.finalizer import with_finalizer

OWNER = "research-team"
SOURCES = 5


def cron(name: str, schedule: str, assistant: str = "answer", **fields: Any) -> dict[str, Any]:
    return {"name": name, "assistant_id": assistant, "schedule": schedule, **fields}


@with_finalizer
@flow(name="research", flow_run_name="research {topic}", log_prints=True)
def research(topic: str) -> None:
    """One question, some sources at once, a conversation about them."""
    first = run_stateless.submit("answer", {"question": f"What is known about {topic}?"})
    inputs = [{"tag": f"source {n}", "sleep": 0.3 * n} for n in range(SOURCES)]
    sources = start_runs.submit("worker", inputs, wait_for=[first])
    joined = join_runs.submit(sources)
    thread = create_thread.submit()
    said = run_on_thread.submit(thread, "chat", {"messages": [("user", topic)]}, wait_for=[joined])
    said.result()


@flow(name="forgetful", flow_run_name="forgot its run")
def forgetful() -> None:
    """Leaves a run behind, and has no finalizer."""
    start_run("worker", {"sleep": 600})


@with_finalizer
@flow(name="morning", flow_run_name="morning round")
def morning() -> None:
    """Sweeps while a run of its own goes on: that one is not to be touched."""
    mine = start_run("worker", {"sleep": 2})
    sweep(grace_seconds=0)
    join_run(mine)


def crons(url: str) -> State:
    """A plan with every kind of step, and what it stands on."""
    client = get_sync_client(url=url)
    foreign = client.crons.create("chat", schedule="0 4 * * *", input={"messages": []})
    reconcile_crons_flow(
        [
            cron("digest", "0 9 * * 1-5", timezone="Europe/Berlin"),
            cron("weekly", "30 6 * * MON", "worker"),
            cron("retired", "@daily"),
        ],
        owner=OWNER,
    )
    planned = reconcile_crons_flow(
        [
            cron("digest", "0 8 * * 1-5", timezone="Europe/Berlin", input={"question": "News?"}),
            cron("weekly", "30 6 * * MON", "worker"),
            cron("nightly", "15 2 * * *", "worker", timezone="Europe/London"),
        ],
        owner=OWNER,
        return_state=True,
    )
    # Other tests use this server too.
    reconcile_crons_flow([], owner=OWNER)
    client.crons.delete(foreign["cron_id"])
    return planned


def main() -> None:
    url = sys.argv[1]
    credentials = LangGraphCredentials(url=url, api_key="not-to-be-shown")
    credentials.save("default", overwrite=True)
    LangGraphAssistant(credentials=credentials, assistant_id="answer").save("support", overwrite=True)
    forgetful()
    made: dict[str, State] = {
        "research": research("ants", return_state=True),
        "assistant": run_assistant(
            "support", {"question": "What is 6 x 7?"}, show_values=True, return_state=True
        ),
        "crons": crons(url),
        "window": cron_window(
            "answer",
            "* * * * * *",
            timedelta(seconds=60),
            {"question": "?"},
            allow_seconds=True,
            max_results=1,
            return_state=True,
        ),
        "morning": morning(return_state=True),
    }
    for name, state in made.items():
        assert state.is_completed(), (name, state)
    found = {name: str(state.state_details.flow_run_id) for name, state in made.items()}
    print(json.dumps(found))  # noqa: T201 the answer to who started this


if __name__ == "__main__":
    main()
