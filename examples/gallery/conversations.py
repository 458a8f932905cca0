"""Conversations with approval: each customer has a thread, and a person approves what is paid.

python examples/gallery/conversations.py
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from prefect_langgraph import (
    LangGraphCredentials,
    ask_interrupts,
    create_thread,
    start_run,
    with_finalizer,
)
from prefect_langgraph.testing import run_langgraph_server

BLOCK = "gallery"
AGENT = Path(__file__).resolve().parents[1] / "agent" / "langgraph.json"


@with_finalizer(BLOCK)
@flow(log_prints=True)
def refund_round(orders: dict[str, tuple[str, int]], minutes: float = 24 * 60) -> dict[str, str]:
    """Refund what people approve. What nobody looks at in time is rejected.

    Args:
        orders: The thread of each customer, with the order and what it cost.
        minutes: How long people have.
    """
    handles = [
        start_run("refunds", {"order": order, "amount": amount}, thread_id=thread, credentials=BLOCK)
        for thread, (order, amount) in orders.items()
    ]
    # With a Prefect deployment the flow run suspends: no process waits for the person.
    result = ask_interrupts(
        handles,
        credentials=BLOCK,
        default_reply={"type": "reject", "message": "nobody looked at it in time"},
        max_wait_seconds=minutes * 60,
    )
    for answer in result.answers:
        print(f"{answer.question.arguments}: {answer.reply['type']} by {answer.answered_by}")
    return {run.handle.thread_id: run.values["said"] for run in result}


if __name__ == "__main__":
    with run_langgraph_server(AGENT, jobs=10) as server:
        LangGraphCredentials(url=server.url).save(BLOCK, overwrite=True)
        ada, bob = create_thread(credentials=BLOCK), create_thread(credentials=BLOCK)
        said = refund_round({ada: ("A-7", 12), bob: ("B-2", 40)}, minutes=0.1)
        print(said[ada])
        # The next round goes on with the same threads.
        print(refund_round({ada: ("A-8", 5)}, minutes=0.1)[ada])
