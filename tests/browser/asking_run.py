"""A flow run that asks a person, and tells what came of it: `python asking_run.py ADDRESS`."""

from __future__ import annotations

import sys

from prefect import flow
from prefect.runtime import flow_run

from prefect_langgraph import LangGraphCredentials, ask_interrupts, start_runs


@flow
def review_refunds(url: str) -> None:
    print(flow_run.id, flush=True)  # noqa: T201
    block = LangGraphCredentials(url=url)
    cases = [{"order": "A-7", "amount": 12}, {"order": "B-2", "amount": 40}]
    handles = start_runs("refunds", cases, credentials=block)
    result = ask_interrupts(handles, credentials=block, wait="process")
    print([values["said"] for values in result.values], flush=True)  # noqa: T201


if __name__ == "__main__":
    review_refunds(sys.argv[1])
