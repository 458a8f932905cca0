"""A scheduled digest: the server runs an agent every few minutes, and a flow sums up what came.

python examples/gallery/digest.py
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from prefect_langgraph import LangGraphCredentials, cron_window
from prefect_langgraph.testing import run_langgraph_server

BLOCK = "gallery"
AGENT = Path(__file__).resolve().parents[1] / "agent" / "langgraph.json"


@flow(log_prints=True)
def digest(
    schedule: str = "*/15 8-18 * * 1-5",
    duration: timedelta = timedelta(hours=10),
    max_results: int | None = None,
) -> str:
    """Have an agent look at the news on a schedule, and make one page of a day.

    The cron is deleted when the time is over, however the flow run ends.
    """
    result = cron_window(
        "answer",
        schedule,
        duration,
        {"question": "What is new?"},
        allow_seconds=True,
        max_results=max_results,
        credentials=BLOCK,
    )
    looks = [f"- {run.values['answer']}" for run in result if run.status == "success"]
    page = "\n".join([f"# {len(looks)} of {len(result)} looks at the news", "", *looks])
    create_markdown_artifact(page, key="digest")
    print(page)
    return page


if __name__ == "__main__":
    # The server looks every second for crons that are due.
    with run_langgraph_server(AGENT, env={"CRON_SCHEDULER_SLEEP_TIME": "1"}) as server:
        LangGraphCredentials(url=server.url).save(BLOCK, overwrite=True)
        # A sixth field are seconds: every second, for five minutes or until three have run.
        digest("* * * * * *", timedelta(minutes=5), max_results=3)
