"""Every task works in every way in which Prefect calls one, and so do the blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from prefect import flow, task
from prefect.futures import PrefectFuture

import prefect_langgraph
from prefect_langgraph import (
    JoinTimeoutError,
    LangGraphAssistant,
    LangGraphCredentials,
    LangGraphRun,
    RunCancelledError,
    RunFailedError,
    RunStatus,
    arun_stateless,
    join_run,
    run_stateless,
    start_run,
)

pytestmark = pytest.mark.usefixtures("prefect_server")

Call = Callable[..., Any]
ACall = Callable[..., Awaitable[Any]]

QUESTION = {"question": "What?"}
ANSWER = {"question": "What?", "answer": "You asked: What?"}
LONG = {"sleep": 60}
TOLD = {
    "stateless": ANSWER,
    "on_thread": 1,
    "state": 1,
    "updated": 3,
    "joined": ANSWER,
    "looked": RunStatus.SUCCESS,
    "joined_many": [ANSWER, ANSWER],
    "cancelled": RunStatus.CANCELLED,
    "cancelled_many": {RunStatus.CANCELLED: 2},
    "deleted": None,
}


async def tour(call: ACall, credentials: LangGraphCredentials) -> dict[str, Any]:
    """Call each task; `call` gets a task's name and its arguments."""

    async def ask(name: str, *args: Any, **kwargs: Any) -> Any:
        return await call(name, *args, credentials=credentials, **kwargs)

    thread_id = await ask("create_thread")
    handle = await ask("start_run", "answer", QUESTION)
    told = {
        "stateless": await ask("run_stateless", "answer", QUESTION),
        "on_thread": (await ask("run_on_thread", thread_id, "chat", {}))["turns"],
        "state": (await ask("get_thread_state", thread_id))["values"]["turns"],
    }
    await ask("update_thread_state", thread_id, {"turns": 2})
    told |= {
        "updated": (await ask("get_thread_state", thread_id))["values"]["turns"],
        "joined": await ask("join_run", handle),
        "looked": (await ask("get_run", handle)).status,
    }
    handles = [await ask("start_run", "answer", QUESTION) for _ in range(2)]
    told["joined_many"] = (await ask("join_runs", handles)).values
    handles = [await ask("start_run", "worker", LONG) for _ in range(3)]
    told |= {
        "cancelled": (await ask("cancel_run", handles[0])).status,
        "cancelled_many": (await ask("cancel_runs", handles[1:])).counts,
        "deleted": await ask("delete_thread", thread_id),
    }
    return told


def sync(call: Call) -> ACall:
    """A synchronous way of calling, for the tour."""

    async def acall(name: str, *args: Any, **kwargs: Any) -> Any:
        return call(getattr(prefect_langgraph, name), *args, **kwargs)

    return acall


def drive(tour_: Awaitable[Any]) -> Any:
    """Run a tour of synchronous calls, where no event loop runs: it never really awaits."""
    steps = tour_.__await__()
    try:
        next(steps)
    except StopIteration as end:
        return end.value
    raise AssertionError("a synchronous tour waited")


def directly(task_: Any, *args: Any, **kwargs: Any) -> Any:
    return task_(*args, **kwargs)


def submitted(task_: Any, *args: Any, **kwargs: Any) -> Any:
    return task_.submit(*args, **kwargs).result()


def mapped(task_: Any, *args: Any, credentials: LangGraphCredentials, **kwargs: Any) -> Any:
    # Everything iterable is mapped, and a list of one is one task run.
    listed = {name: [value] for name, value in kwargs.items()}
    futures = task_.map(*([arg] for arg in args), credentials=[credentials], **listed)
    (result,) = futures.result()
    return result


@pytest.mark.parametrize("way", [directly, submitted, mapped])
def test_tasks_in_a_synchronous_flow(credentials: LangGraphCredentials, way: Call) -> None:
    @flow
    def calling() -> Any:
        return drive(tour(sync(way), credentials))

    assert calling() == TOLD


def test_synchronous_tasks_outside_any_flow(credentials: LangGraphCredentials) -> None:
    assert drive(tour(sync(directly), credentials)) == TOLD


def test_synchronous_tasks_in_an_asynchronous_flow(credentials: LangGraphCredentials) -> None:
    @flow
    async def calling() -> Any:
        return await tour(sync(directly), credentials)

    assert asyncio.run(calling()) == TOLD


async def awaited(name: str, *args: Any, **kwargs: Any) -> Any:
    return await getattr(prefect_langgraph, f"a{name}")(*args, **kwargs)


def test_asynchronous_tasks_in_an_asynchronous_flow(credentials: LangGraphCredentials) -> None:
    @flow
    async def calling() -> Any:
        return await tour(awaited, credentials)

    assert asyncio.run(calling()) == TOLD


def test_asynchronous_tasks_outside_any_flow(credentials: LangGraphCredentials) -> None:
    assert asyncio.run(tour(awaited, credentials)) == TOLD


def test_asynchronous_tasks_submitted_in_an_asynchronous_flow(
    credentials: LangGraphCredentials,
) -> None:
    async def acall(name: str, *args: Any, **kwargs: Any) -> Any:
        future: PrefectFuture[Any] = getattr(prefect_langgraph, f"a{name}").submit(*args, **kwargs)
        return await asyncio.to_thread(future.result)

    @flow
    async def calling() -> Any:
        return await tour(acall, credentials)

    assert asyncio.run(calling()) == TOLD


def test_mapped_calls_give_results_in_input_order(credentials: LangGraphCredentials) -> None:
    @flow
    def calling() -> tuple[list[Any], list[Any]]:
        inputs = [{"tag": f"number {n}", "sleep": 0.5 - n / 10} for n in range(5)]
        handles = start_run.map("worker", inputs, credentials=credentials)
        joined = join_run.map(handles, credentials=credentials)
        values = arun_stateless.map("worker", inputs, credentials=credentials)
        return joined.result(), values.result()

    for values in calling():
        assert [value["result"] for value in values] == [f"number {n}" for n in range(5)]


def test_task_within_a_task_and_in_plain_threads(credentials: LangGraphCredentials) -> None:
    @task
    def outer() -> Any:
        return run_stateless("answer", QUESTION, credentials=credentials)

    @flow
    def calling() -> Any:
        return outer.submit().result()

    assert calling() == ANSWER
    with ThreadPoolExecutor(4) as pool:
        futures = [
            pool.submit(run_stateless, "answer", QUESTION, credentials=credentials) for _ in range(4)
        ]
        assert [future.result() for future in futures] == [ANSWER] * 4


# -- blocks ------------------------------------------------------------------------------------------


@pytest.fixture
def assistant(credentials: LangGraphCredentials) -> LangGraphAssistant:
    return LangGraphAssistant(credentials=credentials, assistant_id="worker")


def test_assistant_triggers_a_run_whose_result_is_fetched(assistant: LangGraphAssistant) -> None:
    run = assistant.trigger({"tag": "a"})
    assert isinstance(run, LangGraphRun)
    run.wait_for_completion()
    assert run.fetch_result()["result"] == "a"
    assert assistant.trigger({"tag": "b"}).fetch_result()["result"] == "b"


def test_deadline_of_an_assistants_run_names_nothing_that_the_caller_cannot_give(
    assistant: LangGraphAssistant,
) -> None:
    run = assistant.trigger(LONG)
    with pytest.raises(JoinTimeoutError, match="Wait again, raise the limit, or cancel it") as caught:
        run.wait_for_completion(max_wait_seconds=0.2)
    assert "on_timeout" not in str(caught.value)
    run.cancel()


def test_assistant_is_awaited_by_its_twins(assistant: LangGraphAssistant) -> None:
    async def main() -> None:
        run = await assistant.atrigger({"tag": "a"})
        await run.await_for_completion()
        assert (await run.afetch_result())["result"] == "a"
        run = await assistant.atrigger(LONG)
        assert (await run.acancel()).status is RunStatus.CANCELLED
        with pytest.raises(RunCancelledError):
            await run.afetch_result()

    asyncio.run(main())


def test_assistant_gives_config_context_and_thread_to_its_runs(
    credentials: LangGraphCredentials,
) -> None:
    given = LangGraphAssistant(
        credentials=credentials, assistant_id="headers", config={"configurable": {"user": "u"}}
    )
    assert given.trigger({}).fetch_result()["given"]["user"] == "u"
    given = LangGraphAssistant(credentials=credentials, assistant_id="headers", context={"user": "c"})
    assert given.trigger({}).fetch_result()["given_context"] == {"user": "c"}
    chat = LangGraphAssistant(credentials=credentials, assistant_id="chat")
    thread_id = prefect_langgraph.create_thread(credentials=credentials)
    for turn in (1, 2):
        assert chat.trigger({}, thread_id=thread_id).fetch_result()["turns"] == turn


def test_assistants_failed_run_completes_and_its_result_raises(assistant: LangGraphAssistant) -> None:
    run = assistant.trigger({"fail": "no luck"})
    run.wait_for_completion()
    for _ in range(2):
        with pytest.raises(RunFailedError, match="no luck"):
            run.fetch_result()


def test_assistants_run_is_cancelled(assistant: LangGraphAssistant) -> None:
    run = assistant.trigger(LONG)
    assert run.cancel().status is RunStatus.CANCELLED
    with pytest.raises(RunCancelledError):
        run.fetch_result()


def test_assistant_loaded_by_its_name_runs(assistant: LangGraphAssistant) -> None:
    url = assistant.credentials.url
    LangGraphCredentials(url=url).save("of-the-assistant", overwrite=True)
    saved = LangGraphAssistant(
        credentials=LangGraphCredentials.load("of-the-assistant"), assistant_id="worker"
    )
    saved.save("worker", overwrite=True)
    run = LangGraphAssistant.load("worker").trigger({"tag": "a"})
    assert run.fetch_result()["result"] == "a"


def test_handle_of_a_call_by_name_carries_the_name_although_the_block_was_used_before_it_was_saved(
    credentials: LangGraphCredentials,
) -> None:
    block = LangGraphCredentials(url=credentials.url)
    run_stateless("worker", {"tag": "a"}, credentials=block)
    LangGraphCredentials(url=credentials.url).save("saved-later", overwrite=True)
    handle = start_run("worker", {"tag": "b"}, credentials="saved-later")
    assert handle.credentials == "saved-later"
    assert join_run(handle)["result"] == "b"
