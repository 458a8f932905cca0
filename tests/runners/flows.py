"""The flows whose tasks run in threads, in a process pool and on Dask; the pools import this module."""

from __future__ import annotations

from typing import Any

from prefect import flow, task

from prefect_langgraph import (
    LangGraphAssistant,
    LangGraphCredentials,
    RunHandle,
    join_run,
    join_runs,
    run_stateless,
    start_run,
    start_runs,
    with_finalizer,
)

SAME = {"tag": "same"}
WITHIN = {"tag": "within"}
NESTED = {"tag": "nested"}
MAPPED = [{"tag": f"mapped {number}"} for number in range(3)]
BATCH = [{"tag": f"batch {number}"} for number in range(3)]
MADE = {
    "same": 6,
    "within": 4,
    "nested": 2,
    **{work["tag"]: 1 for work in MAPPED},
    **{work["tag"]: 2 for work in BATCH},
}
"""How many runs `everything` makes of each tag."""

ATTEMPTS: list[list[RunHandle]] = []
"""The handles that each execution of `everything` got."""


class AgainError(Exception):
    """Makes Prefect execute the flow run again."""


@task
def batch(block: str) -> list[RunHandle]:
    return start_runs("counted", BATCH, credentials=block)


@task
def twice_within(block: str) -> list[str]:
    return [run_stateless("counted", WITHIN, credentials=block)["result"] for _ in range(2)]


# Without its own finalizer, a subflow hands its results over for good.
@with_finalizer(parameter="block")
@flow
def inner(block: str) -> str:
    return str(run_stateless("counted", NESTED, credentials=block)["result"])


@task
def through_a_subflow(block: str) -> str:
    return inner(block)


@with_finalizer(parameter="block")
@flow(retries=1)
def everything(block: str) -> list[list[str]]:
    """Every way to make runs, with identical calls in this process and in the others, twice."""
    same = [run_stateless.submit("counted", SAME, credentials=block) for _ in range(5)]
    within = [twice_within.submit(block) for _ in range(2)]
    nested = [through_a_subflow.submit(block) for _ in range(2)]
    batches = [batch.submit(block) for _ in range(2)]
    mapped = start_run.map("counted", MAPPED, credentials=block)
    joined = join_run.map(mapped)
    fanned = [join_runs.submit(started) for started in batches]
    here = run_stateless("counted", SAME, credentials=block)
    results = [
        [values["result"] for values in (here, *(future.result() for future in same))],
        [result for future in within for result in future.result()],
        [future.result() for future in nested],
        [values["result"] for values in joined.result()],
        [values["result"] for future in fanned for values in future.result().values],
    ]
    ATTEMPTS.append([*mapped.result(), *(handle for future in batches for handle in future.result())])
    if len(ATTEMPTS) == 1:
        raise AgainError
    return results


@flow
def unowned(block: str) -> list[str]:
    """Runs that other processes start, and others join, without a finalizer."""
    same = [run_stateless.submit("counted", SAME, credentials=block) for _ in range(2)]
    joined = join_run.map(start_run.map("counted", [SAME] * 3, credentials=block))
    return [values["result"] for values in (*joined.result(), *(future.result() for future in same))]


@task
def asks(assistant: LangGraphAssistant) -> str:
    return str(assistant.trigger({"tag": "assistant"}).fetch_result()["result"])


@task
def searches(block: LangGraphCredentials) -> int:
    with block.get_sync_client() as client:
        return len(client.assistants.search(graph_id="counted"))


@flow
def with_blocks(
    saved: LangGraphCredentials,
    open_to_all: LangGraphCredentials,
    assistants: list[LangGraphAssistant],
) -> list[Any]:
    """Blocks themselves go to other processes."""
    futures = [
        run_stateless.submit("counted", {"tag": "saved"}, credentials=saved),
        run_stateless.submit("counted", {"tag": "open"}, credentials=open_to_all),
        searches.submit(saved),
        *(asks.submit(assistant) for assistant in assistants),
    ]
    return [future.result() for future in futures]


@flow
def with_unsaved_block(unsaved: LangGraphCredentials) -> list[str]:
    """What other processes make of a block that was not saved, and of a handle made with it."""
    handle = start_run("counted", SAME, credentials=unsaved)
    join_run(handle)
    futures = [run_stateless.submit("counted", SAME, credentials=unsaved), join_run.submit(handle)]
    errors = [future.result(raise_on_failure=False) for future in futures]
    return [f"{type(error).__name__}: {error}" for error in errors]


SUBMITTED: dict[str | None, list[str]] = {}
"""The runs that each execution of `submits` got, by its key."""


@task(retries=1)
def submits(block: str, key: str | None) -> None:
    handle = start_run.submit("counted", SAME, credentials=block, idempotency_key=key).result()
    SUBMITTED.setdefault(key, []).append(handle.run_id)
    join_run(handle, credentials=block)  # what is active when the flow run has ended is left running
    if len(SUBMITTED[key]) == 1:
        raise AgainError


@with_finalizer(parameter="block")
@flow
def submits_and_retries(block: str) -> None:
    """A task of this process sends ours to others, and is retried."""
    submits(block, None)
    submits(block, "mine")


@flow
def waits(block: str) -> str:
    """A run that waits for its test."""
    future = run_stateless.submit("counted", {"tag": "gated", "gate": True}, credentials=block)
    return str(future.result()["result"])
