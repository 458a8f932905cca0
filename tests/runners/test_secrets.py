"""No secret is pickled on its way to another process, and blocks are of use there nevertheless."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import cloudpickle
import prefect.task_runners
import pytest
from distributed.protocol import pickle as dask_pickle
from prefect import flow
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from faults.tally import RUN, Tally
from prefect_langgraph import (
    FanOutResult,
    InvalidRequestError,
    LangGraphAssistant,
    LangGraphCredentials,
    LangGraphError,
    RunHandle,
    RunResult,
    RunStatus,
    join_run,
    run_stateless,
    with_finalizer,
)
from prefect_langgraph.blocks.assistant import LangGraphRun
from prefect_langgraph.errors import AuthenticationError, UnreachableError
from prefect_langgraph.transport.connection import Connection
from runners import flows

KEY, TOKEN = "s3cr3t-of-the-key", "s3cr3t-of-a-header"
URL = "http://localhost:2024"


def block_at(url: str) -> LangGraphCredentials:
    return LangGraphCredentials(url=url, api_key=KEY, headers={"x-gateway": TOKEN})


def shows_no_secret(data: bytes) -> None:
    for secret in (KEY, TOKEN):
        assert secret.encode() not in data


# What is pickled

HANDLE = RunHandle(run_id="r", thread_id="t", assistant_id="a", url=URL)
RESULT = RunResult(handle=HANDLE, status=RunStatus.ERROR)


def finalized_with(block: LangGraphCredentials) -> Any:
    @with_finalizer(block)
    @flow
    def owner() -> None:
        pass

    return owner


def assistant_of(block: LangGraphCredentials) -> LangGraphAssistant:
    return LangGraphAssistant(credentials=block, assistant_id="a")


MADE_WITH_A_BLOCK: dict[str, Any] = {
    "block": lambda block: block,
    "assistant": assistant_of,
    "run of an assistant": lambda block: LangGraphRun(HANDLE, block),
    "flow with a finalizer": finalized_with,
    "misspelt field": lambda block: LangGraphCredentials(url=URL, apikey=KEY, **{"x-gateway": TOKEN}),
}
WITHOUT_A_BLOCK: dict[str, Any] = {
    "handle": HANDLE,
    "result": RESULT,
    "fan-out": FanOutResult(results=(RESULT,)),
    "failure": RESULT.as_error(),
    "refusal": AuthenticationError("refused", status_code=401, url=URL),
    "no answer": UnreachableError("no answer", url=URL),
    "task": run_stateless,
    "task with options": join_run.with_options(retries=1),
}


@pytest.mark.parametrize("made", MADE_WITH_A_BLOCK.values(), ids=MADE_WITH_A_BLOCK)
def test_what_a_block_is_in_is_pickled_without_its_secrets(made: Any) -> None:
    data = cloudpickle.dumps(made(block_at(URL)))
    shows_no_secret(data)
    again = cloudpickle.loads(data)
    assert type(again) is type(made(block_at(URL)))
    shows_no_secret(cloudpickle.dumps(again))


@pytest.mark.parametrize("what", WITHOUT_A_BLOCK.values(), ids=WITHOUT_A_BLOCK)
def test_what_goes_between_processes_is_pickled_and_comes_back(what: Any) -> None:
    again = cloudpickle.loads(cloudpickle.dumps(what))
    assert type(again) is type(what)
    assert str(again) == str(what) or "object at" in str(what)


def test_pickling_leaves_the_block_itself_as_it_is() -> None:
    block = block_at(URL)
    cloudpickle.dumps(block)
    assert block == block_at(URL)
    assert block.connection().secrets == (KEY, TOKEN)


def test_connection_with_its_secrets_is_not_pickled() -> None:
    with pytest.raises(TypeError, match="is not pickled"):
        cloudpickle.dumps(Connection(URL, api_key=KEY))


def test_block_that_was_not_saved_says_elsewhere_what_is_missing_and_what_to_do() -> None:
    again = cloudpickle.loads(cloudpickle.dumps(block_at(URL)))
    assert again.left_behind == ("api_key", "headers")
    for use in (again.connection, again.get_client, again.get_sync_client):
        with pytest.raises(LangGraphError, match=r"without its api_key and headers.*Save the block"):
            use()


def test_block_without_secrets_is_of_use_elsewhere() -> None:
    block = LangGraphCredentials(url=URL, max_connections=3)
    again = cloudpickle.loads(cloudpickle.dumps(block))
    assert again == block
    assert again.connection() == block.connection()


@pytest.mark.usefixtures("prefect_server")
def test_saved_block_takes_its_secrets_from_prefect_elsewhere() -> None:
    name = f"travels-{uuid.uuid4().hex[:8]}"
    block = block_at(URL)
    block.save(name)
    block.max_connections = 3
    data = cloudpickle.dumps(block)
    shows_no_secret(data)
    again = cloudpickle.loads(data)
    assert again.saved_name == name
    assert again.connection() == block.connection()
    assert again.connection().secrets == (KEY, TOKEN)


@pytest.mark.usefixtures("prefect_server")
def test_secrets_of_a_saved_block_do_not_go_to_another_address() -> None:
    name = f"moved-{uuid.uuid4().hex[:8]}"
    block = block_at(URL)
    block.save(name)
    block.url = "http://elsewhere"
    again = cloudpickle.loads(cloudpickle.dumps(block))
    with pytest.raises(InvalidRequestError, match=r"http://elsewhere.*leads to http://localhost:2024"):
        again.connection()


# What task runners send


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """All that is pickled for a process pool and for Dask, with Prefect's context of the flow run."""
    found: list[bytes] = []
    wrap, dumps = prefect.task_runners.cloudpickle_wrapped_call, dask_pickle.dumps

    def for_the_pool(*args: Any, **kwargs: Any) -> Any:
        found.append(cloudpickle.dumps((args, kwargs)))
        return wrap(*args, **kwargs)

    def for_dask(what: Any, **options: Any) -> Any:
        data = dumps(what, **options)
        found.append(data)
        return data

    monkeypatch.setattr(prefect.task_runners, "cloudpickle_wrapped_call", for_the_pool)
    monkeypatch.setattr(dask_pickle, "dumps", for_dask)
    yield found
    for data in found:
        shows_no_secret(data)


def test_blocks_themselves_work_in_every_process_without_their_secrets_on_the_way(
    tally: Tally, runner: TaskRunner[Any], sent: list[bytes]
) -> None:
    name = f"secret-{uuid.uuid4().hex[:8]}"
    block_at(tally.proxy.url).save(name)
    saved = LangGraphCredentials.load(name)
    # One names the saved block, the other holds credentials of its own.
    for number, credentials in enumerate([saved, block_at(tally.proxy.url)]):
        LangGraphAssistant(credentials=credentials, assistant_id="counted").save(f"{name}-{number}")
    assistants = [LangGraphAssistant.load(f"{name}-{number}") for number in range(2)]
    unlocked = LangGraphCredentials(url=tally.proxy.url)
    results = flows.with_blocks.with_options(task_runner=runner)(saved, unlocked, assistants)
    assert [results[0]["result"], results[1]["result"]] == ["saved", "open"]
    assert results[2:] == [1, "assistant", "assistant"]
    keys = [request.headers.get("x-api-key") for request in tally.proxy.seen("POST", RUN)]
    assert sorted(keys, key=str) == [None, KEY, KEY, KEY]
    searches = tally.proxy.seen("POST", "/assistants/search$")
    assert [request.headers["x-gateway"] for request in searches] == [TOKEN]
    if not isinstance(runner, ThreadPoolTaskRunner):
        assert any(name.encode() in data for data in sent)
    tally.nothing_left()


def test_block_that_was_not_saved_is_refused_elsewhere_and_so_is_its_handle(
    tally: Tally, pool: TaskRunner[Any], sent: list[bytes]
) -> None:
    errors = flows.with_unsaved_block.with_options(task_runner=pool)(block_at(tally.proxy.url))
    assert "LangGraphError: The LangGraphCredentials block" in errors[0]
    assert "Save the block and give its name as credentials=." in errors[0]
    assert "LangGraphError: The handle was made with a block that was not saved" in errors[1]
    assert "Give credentials=" in errors[1]
    assert tally.made == 1
    assert sent
    tally.nothing_left()
