"""Streams: every part, in order, as it comes, and then how the run ended."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
from langgraph_sdk.client import SyncLangGraphClient
from langgraph_sdk.schema import StreamMode
from prefect import flow, task
from prefect.context import TaskRunContext
from prefect.states import State

from prefect_langgraph import (
    InvalidRequestError,
    JoinTimeoutError,
    LangGraphCredentials,
    RunCancelledError,
    RunFailedError,
    RunHandle,
    RunInterruptedError,
    StreamBrokenError,
    StreamPart,
    ajoin_stream,
    astart_run,
    astream_run,
    astream_to_logs,
    create_thread,
    join_run,
    join_stream,
    start_run,
    stream_run,
    stream_to_logs,
)
from prefect_langgraph.testing import LangGraphServer, run_langgraph_server
from prefect_langgraph.transport.generators import SIZE
from proxy import Answer, CutStream, Proxy
from support.plain_sdk import sync_sdk
from support.waiting import until

pytestmark = pytest.mark.usefixtures("prefect_server")

STREAM = r"/runs/[^/]+/stream$"
KEPT = ["values", "updates", "events", "tasks", "checkpoints", "debug", "custom", "messages-tuple"]
# The SDK knows more than this server, and the server keeps nothing of "messages".
OTHERS = sorted(set(get_args(StreamMode)) - {*KEPT, "messages"})

AGENT = """
import asyncio
import operator
from typing import Annotated, Any, TypedDict

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, MessagesState, StateGraph

TEXT = "One two three.\\nFour five six, seven eight nine ten."


class State(TypedDict, total=False):
    bursts: int
    size: int
    pause: float
    done: Annotated[int, operator.add]


async def inner(state: State) -> State:
    get_stream_writer()("inside")
    return {"done": 1}


async def emit(state: State) -> State:
    write = get_stream_writer()
    for burst in range(state.get("bursts", 1)):
        for number in range(state.get("size", 1)):
            write({"burst": burst, "same": "x" * 20, "half": number // 2})
        await asyncio.sleep(state.get("pause", 0))
    return {"done": 1}


subgraph = StateGraph(State).add_node(inner).add_edge(START, "inner").add_edge("inner", END).compile()
burst_graph = (
    StateGraph(State)
    .add_node("sub", subgraph)
    .add_node("emit", emit)
    .add_edge(START, "sub")
    .add_edge("sub", "emit")
    .add_edge("emit", END)
    .compile()
)


async def talk(state: MessagesState) -> dict[str, Any]:
    model = GenericFakeChatModel(messages=iter([AIMessage(TEXT)]))
    answer = None
    async for chunk in model.astream(state["messages"]):
        answer = chunk if answer is None else answer + chunk
        await asyncio.sleep(0.12)
    return {"messages": [answer]}


talk_graph = (
    StateGraph(MessagesState).add_node(talk).add_edge(START, "talk").add_edge("talk", END).compile()
)
"""


def agent(folder: Path) -> Path:
    (folder / "stream_agent.py").write_text(AGENT, encoding="utf-8")
    graphs = {
        "burst": "./stream_agent.py:burst_graph",
        "talk": "./stream_agent.py:talk_graph",
        "worker": str(Path(__file__).parents[2] / "examples" / "agent" / "worker.py:worker"),
    }
    config = folder / "langgraph.json"
    config.write_text(json.dumps({"dependencies": ["."], "graphs": graphs}), encoding="utf-8")
    return config


@pytest.fixture(scope="module")
def langgraph_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LangGraphServer]:
    with run_langgraph_server(agent(tmp_path_factory.mktemp("agent")), jobs=20) as server:
        yield server


@pytest.fixture(scope="module")
def credentials(langgraph_server: LangGraphServer) -> LangGraphCredentials:
    return LangGraphCredentials(url=langgraph_server.url)


@pytest.fixture(scope="module")
def client(credentials: LangGraphCredentials) -> Iterator[SyncLangGraphClient]:
    with sync_sdk(credentials.url) as client:
        yield client


def said(parts: list[StreamPart]) -> list[tuple[str, Any]]:
    return [(part.event, part.data) for part in parts]


def kept_by(client: SyncLangGraphClient, thread_id: str) -> list[tuple[str, Any]]:
    """What the server itself replays of a thread's newest run."""
    (run,) = client.runs.list(thread_id, limit=1)
    parts = client.runs.join_stream(thread_id, run["run_id"], last_event_id="0")
    return [(part.event, part.data) for part in parts]


def status_of(client: SyncLangGraphClient, thread_id: str) -> str:
    runs = client.runs.list(thread_id, limit=1)
    return runs[0]["status"] if runs else "none"


# -- parts -----------------------------------------------------------------------------------------


def test_parts_come_while_the_run_works(
    credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    thread_id = create_thread(credentials=credentials)
    seen = []
    asked = {"events": ["first"], "sleep": 1.0}
    for part in stream_run(
        "worker", asked, thread_id=thread_id, stream_mode="custom", credentials=credentials
    ):
        seen.append((part.event, status_of(client, thread_id)))
    assert seen == [("metadata", "running"), ("custom", "running")]


@pytest.mark.parametrize("mode", KEPT)
def test_each_mode_gives_what_the_server_keeps_of_it(
    mode: StreamMode, credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    thread_id = create_thread(credentials=credentials)
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
    parts = list(
        stream_run("talk", asked, thread_id=thread_id, stream_mode=mode, credentials=credentials)
    )
    assert said(parts) == kept_by(client, thread_id)
    assert parts[0].event == "metadata"
    assert {part.event for part in parts[1:]} <= {mode.removesuffix("-tuple")}


@pytest.mark.parametrize("mode", OTHERS)
def test_mode_that_the_server_does_not_know_is_refused(
    mode: StreamMode, credentials: LangGraphCredentials
) -> None:
    with pytest.raises(InvalidRequestError, match="422"):
        next(stream_run("talk", {}, stream_mode=mode, credentials=credentials))


def test_several_modes_and_subgraphs_are_told_apart_by_event_and_namespace(
    credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    asked = {"bursts": 2, "size": 3}
    options: dict[str, Any] = {"stream_mode": ["updates", "custom", "values"], "stream_subgraphs": True}
    parts = list(stream_run("burst", asked, credentials=credentials, **options))
    plain = client.runs.stream(None, "burst", input=asked, **options)
    expected = Counter(part.event.split("|")[0] for part in plain)
    assert Counter(part.event for part in parts) == expected
    inside = [part for part in parts if part.namespace]
    assert {part.namespace[0].split(":")[0] for part in inside} == {"sub"}
    assert ("custom", "inside") in said(inside)
    assert all("|" not in part.event for part in parts)


def test_mode_messages_is_heard_from_the_first_token(credentials: LangGraphCredentials) -> None:
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
    parts = list(stream_run("talk", asked, stream_mode="messages", credentials=credentials))
    texts = [part.data[0]["content"] for part in parts if part.event == "messages/partial"]
    assert texts[0] == "One"
    assert texts[-1].endswith("ten.")


def test_mode_messages_that_was_cut_is_an_error(
    proxy: Proxy, through_proxy: LangGraphCredentials
) -> None:
    proxy.on("GET", STREAM, CutStream(900))
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
    with pytest.raises(StreamBrokenError, match="messages-tuple"):
        list(stream_run("talk", asked, stream_mode="messages", credentials=through_proxy))


def test_parts_are_not_collected(credentials: LangGraphCredentials) -> None:
    asked = {"bursts": 40, "size": 50}
    count = most = 0
    for part in stream_run("burst", asked, stream_mode="custom", credentials=credentials):
        count += part.event == "custom"
        del part
        if count % 100 == 0:
            alive = sum(isinstance(item, StreamPart) for item in gc.get_objects())
            most = max(most, alive)
    assert count == 2000
    # Those in the feed, and those of the last millisecond.
    assert most < SIZE + 200


def test_unknown_mode_is_refused_before_a_request(credentials: LangGraphCredentials) -> None:
    with pytest.raises(InvalidRequestError, match="stream_mode='tokens'"):
        list(stream_run("worker", {}, stream_mode="tokens", credentials=credentials))  # type: ignore[arg-type]


# -- the end ---------------------------------------------------------------------------------------


def test_failure_is_raised_after_the_last_part(credentials: LangGraphCredentials) -> None:
    seen = []
    with pytest.raises(RunFailedError) as caught:  # noqa: PT012 - the parts before count
        for part in stream_run("worker", {"fail": "no luck"}, credentials=credentials):
            seen.append(part.event)
    assert seen == ["metadata", "updates"]
    assert (caught.value.error, caught.value.detail) == ("RuntimeError", "no luck")


def test_cancelled_run_is_raised_after_the_last_part(
    credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    thread_id = create_thread(credentials=credentials)
    seen = []
    with pytest.raises(RunCancelledError):  # noqa: PT012 - the parts before count
        for part in stream_run("worker", {"sleep": 60}, thread_id=thread_id, credentials=credentials):
            seen.append(part.event)
            if part.event == "updates":
                client.runs.cancel(thread_id, client.runs.list(thread_id)[0]["run_id"])
    assert seen == ["metadata", "updates"]


def test_interrupt_is_raised_or_ends_the_stream_as_chosen(credentials: LangGraphCredentials) -> None:
    thread_id = create_thread(credentials=credentials)
    with pytest.raises(RunInterruptedError) as caught:
        list(stream_run("worker", {"interrupts": 1}, thread_id=thread_id, credentials=credentials))
    assert len(caught.value.interrupts) == 1
    resumed = stream_run(
        "worker",
        thread_id=thread_id,
        command={"resume": "yes"},
        interrupt_before=["finish"],
        on_interrupt="return",
        credentials=credentials,
    )
    assert [next(iter(part.data)) for part in resumed][1:] == ["ask", "__interrupt__"]


def test_stateless_interrupt_says_that_there_is_no_thread(credentials: LangGraphCredentials) -> None:
    with pytest.raises(RunInterruptedError, match="keeps no thread"):
        list(stream_run("worker", {"interrupts": 1}, credentials=credentials))


def test_deadline_that_passes_cancels_the_run_and_says_so(
    credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    thread_id = create_thread(credentials=credentials)
    with pytest.raises(JoinTimeoutError, match=r"max_wait_seconds=1.5; its status is running\. It was"):
        list(
            stream_run(
                "worker",
                {"sleep": 60},
                thread_id=thread_id,
                max_wait_seconds=1.5,
                credentials=credentials,
            )
        )
    assert status_of(client, thread_id) == "interrupted"


def test_stateless_stream_leaves_no_thread(
    credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    mark = uuid.uuid4().hex
    list(stream_run("worker", {}, metadata={"mark": mark}, credentials=credentials))
    assert client.threads.search(metadata={"mark": mark}) == []


# -- whole -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("after_bytes", "end"), [(1, True), (150, False), (777, True), (2048, False)])
def test_connections_that_break_again_and_again_lose_and_repeat_nothing(
    after_bytes: int,
    end: bool,
    proxy: Proxy,
    through_proxy: LangGraphCredentials,
    client: SyncLangGraphClient,
) -> None:
    rule = proxy.on("GET", STREAM, CutStream(after_bytes, end=end), times=6)
    thread_id = create_thread(credentials=through_proxy)
    asked = {"bursts": 6, "size": 6, "pause": 0.05}
    parts = list(
        stream_run(
            "burst",
            asked,
            thread_id=thread_id,
            stream_mode=["custom", "updates"],
            credentials=through_proxy,
        )
    )
    assert rule.hits > 1
    assert said(parts) == kept_by(client, thread_id)
    assert len({part.id for part in parts}) == len(parts)


def test_stateless_stream_outlasts_a_deployment_that_is_away(
    proxy: Proxy, through_proxy: LangGraphCredentials
) -> None:
    data = []
    asked = {"bursts": 8, "pause": 0.2}
    for part in stream_run("burst", asked, stream_mode="custom", credentials=through_proxy):
        if part.event == "custom":
            data.append(part.data["burst"])
            if len(data) == 2:
                proxy.refuse()
                threading.Timer(0.5, proxy.accept).start()
    assert data == list(range(8))


def test_server_that_restarted_without_its_parts_is_an_error_and_no_silence(tmp_path: Path) -> None:
    with run_langgraph_server(agent(tmp_path), jobs=5) as server:
        credentials = LangGraphCredentials(url=server.url)
        seen = []
        with pytest.raises(StreamBrokenError) as caught:  # noqa: PT012 - the parts before count
            for part in stream_run("worker", {"sleep": 2}, credentials=credentials):
                seen.append(part)
                if part.event == "updates" and len(seen) == 2:
                    server.restart()
        assert [part.event for part in seen] == ["metadata", "updates"]
        assert caught.value.last_event_id == seen[-1].id
        assert caught.value.handle.run_id == seen[0].data["run_id"]


def test_many_streams_and_few_connections_do_not_starve_each_other(
    langgraph_server: LangGraphServer,
) -> None:
    few = LangGraphCredentials(url=langgraph_server.url, max_connections=2)

    async def one(number: int) -> list[str]:
        asked = {"tag": str(number), "sleep": 0.5}
        return [part.event async for part in astream_run("worker", asked, credentials=few)]

    async def all_of_them() -> list[list[str]]:
        return await asyncio.gather(*(one(number) for number in range(12)))

    assert asyncio.run(all_of_them()) == [["metadata", *["updates"] * 3]] * 12


# -- letting go ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on_disconnect", "becomes"), [("cancel", "interrupted"), ("continue", "success")]
)
def test_consumer_that_stops_early_lets_go_of_the_run_as_chosen(
    on_disconnect: Any, becomes: str, credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    thread_id = create_thread(credentials=credentials)
    for part in stream_run(
        "worker",
        {"sleep": 2},
        thread_id=thread_id,
        on_disconnect=on_disconnect,
        credentials=credentials,
    ):
        if part.event == "updates":
            break
    if on_disconnect == "cancel":
        # The consumer goes on only when that is so.
        assert status_of(client, thread_id) == becomes
    until(lambda: status_of(client, thread_id) == becomes)


def test_exception_in_the_consumer_lets_go_of_the_run(
    credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    thread_id = create_thread(credentials=credentials)

    def consume() -> None:
        for part in stream_run("worker", {"sleep": 60}, thread_id=thread_id, credentials=credentials):
            if part.event == "updates":
                raise LookupError

    with pytest.raises(LookupError):
        consume()
    gc.collect()
    until(lambda: status_of(client, thread_id) == "interrupted")


@pytest.mark.parametrize("how", ["aclose", "break", "cancel", "timeout"])
def test_asynchronous_consumer_that_stops_early_lets_go_of_the_run(
    how: str, credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    thread_id = create_thread(credentials=credentials)

    async def consume() -> None:
        stream = astream_run("worker", {"sleep": 60}, thread_id=thread_id, credentials=credentials)
        if how == "aclose":
            async with contextlib.aclosing(stream):
                async for part in stream:
                    if part.event == "updates":
                        return
        async for part in stream:
            if how == "break" and part.event == "updates":
                break

    async def stop() -> None:
        if how == "timeout":
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(consume(), timeout=2)
        elif how == "cancel":
            consuming = asyncio.create_task(consume())
            await asyncio.to_thread(until, lambda: status_of(client, thread_id) == "running")
            consuming.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await consuming
        else:
            await consume()

    asyncio.run(stop())
    until(lambda: status_of(client, thread_id) == "interrupted")


@pytest.mark.parametrize(
    ("on_disconnect", "becomes"), [("cancel", "interrupted"), ("continue", "success")]
)
def test_killed_process_lets_go_of_the_run_as_chosen(
    on_disconnect: str, becomes: str, credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    thread_id = create_thread(credentials=credentials)
    code = (
        "import sys; from prefect_langgraph import LangGraphCredentials, stream_run\n"
        "url, thread_id, on_disconnect = sys.argv[1:]\n"
        "for part in stream_run('worker', {'sleep': 4}, thread_id=thread_id,\n"
        "        on_disconnect=on_disconnect, credentials=LangGraphCredentials(url=url)):\n"
        "    print(part.event, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, credentials.url, thread_id, on_disconnect],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert next(line for line in process.stdout if line == "updates\n")
        os.kill(process.pid, signal.SIGKILL)
    until(lambda: status_of(client, thread_id) == becomes)


# -- join_stream -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def background(credentials: LangGraphCredentials) -> RunHandle:
    """A run that has ended, on a thread that stays."""
    handle = start_run(
        "burst",
        {"bursts": 2, "size": 3},
        thread_id=create_thread(credentials=credentials),
        stream_mode=["custom", "updates"],
        stream_resumable=True,
        credentials=credentials,
    )
    join_run(handle, credentials=credentials)
    return handle


def test_run_that_has_ended_is_read_from_its_beginning_again_and_again(
    background: RunHandle, credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    first = list(join_stream(background, credentials=credentials))
    assert said(first) == kept_by(client, background.thread_id)
    assert list(join_stream(background, credentials=credentials)) == first


def test_run_is_read_on_from_the_id_of_any_part(
    background: RunHandle, credentials: LangGraphCredentials
) -> None:
    parts = list(join_stream(background, credentials=credentials))

    async def rest(part: StreamPart) -> list[StreamPart]:
        stream = ajoin_stream(background, last_event_id=part.id, credentials=credentials)
        return [item async for item in stream]

    async def rests() -> list[list[StreamPart]]:
        return await asyncio.gather(*(rest(part) for part in parts))

    assert asyncio.run(rests()) == [parts[index + 1 :] for index in range(len(parts))]


def test_join_gives_the_modes_that_are_asked_for(
    background: RunHandle, credentials: LangGraphCredentials
) -> None:
    events = [
        part.event for part in join_stream(background, stream_mode="updates", credentials=credentials)
    ]
    assert events == ["metadata", "updates", "updates"]


def test_late_reader_of_a_run_that_keeps_no_parts_is_told_so(credentials: LangGraphCredentials) -> None:
    thread_id = create_thread(credentials=credentials)
    handle = start_run("worker", {}, thread_id=thread_id, credentials=credentials)
    join_run(handle, credentials=credentials)
    with pytest.raises(StreamBrokenError, match="stream_resumable=True"):
        list(join_stream(handle, credentials=credentials))


def test_reader_who_is_in_time_gets_all_of_a_run_that_keeps_no_parts(
    credentials: LangGraphCredentials,
) -> None:
    handle = start_run("worker", {}, after_seconds=1, stream_mode="updates", credentials=credentials)
    parts = list(join_stream(handle, credentials=credentials))
    assert [part.event for part in parts] == ["metadata", *["updates"] * 3]
    assert {part.id for part in parts} == {None}


def test_joined_run_goes_on_when_its_reader_stops(
    credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    handle = start_run(
        "worker",
        {"sleep": 1},
        thread_id=create_thread(credentials=credentials),
        stream_resumable=True,
        credentials=credentials,
    )
    for _ in join_stream(handle, credentials=credentials):
        break
    assert join_run(handle, credentials=credentials)["result"] == "done"


# -- stream_to_logs --------------------------------------------------------------------------------


def test_tokens_become_lines_and_the_values_are_returned(
    credentials: LangGraphCredentials, caplog: pytest.LogCaptureFixture
) -> None:
    asked = {"messages": [{"role": "user", "content": "my-own-input"}]}
    values = stream_to_logs("talk", asked, credentials=credentials)
    assert values["messages"][-1]["content"].endswith("nine ten.")
    lines = [record for record in caplog.records if record.message.startswith("talk: ")]
    gaps = [later.created - earlier.created for earlier, later in pairwise(lines)]
    assert len(lines) > 1
    assert min(gaps) > 0.9
    told = " ".join(record.message.removeprefix("talk: ") for record in lines)
    assert "".join(told.split()) == "Onetwothree.Fourfivesix,seveneightnineten.|talkdone"
    assert "my-own-input" not in caplog.text


def test_asynchronous_logs_raise_what_a_join_would(credentials: LangGraphCredentials) -> None:
    with pytest.raises(RunFailedError):
        asyncio.run(astream_to_logs("worker", {"fail": "no luck"}, credentials=credentials))


# -- what Prefect does with generator tasks ---------------------------------------------------------


def test_submitted_stream_gives_the_list_of_its_parts(credentials: LangGraphCredentials) -> None:
    @flow
    def submits() -> tuple[Any, str]:
        future = stream_run.submit("worker", {"tag": "a"}, credentials=credentials)
        return future.result(), future.state.type.value

    parts, state = submits()
    assert [part.event for part in parts] == ["metadata", *["updates"] * 3]
    assert state == "COMPLETED"


def test_submitted_stream_of_a_failed_run_fails(credentials: LangGraphCredentials) -> None:
    @flow
    def submits() -> State[Any]:
        future = stream_run.submit("worker", {"fail": "no luck"}, credentials=credentials)
        future.wait()
        return future.state

    state = submits(return_state=True)
    assert state.is_failed()
    with pytest.raises(RunFailedError):
        state.result()  # type: ignore[unused-coroutine]


def test_asynchronous_stream_cannot_be_submitted(credentials: LangGraphCredentials) -> None:
    @flow
    def submits() -> Any:
        return astream_run.submit("worker", {}, credentials=credentials).result()

    with pytest.raises(TypeError, match="await"):
        submits()


def test_stream_has_no_state_to_return(credentials: LangGraphCredentials) -> None:
    with pytest.raises(ValueError, match="generator task must be 'result'"):
        next(stream_run("worker", {}, credentials=credentials, return_state=True))  # type: ignore[call-overload]


def test_retry_goes_on_behind_the_last_part_of_the_same_run(
    through_proxy: LangGraphCredentials, proxy: Proxy
) -> None:
    stubborn = stream_run.with_options(
        retries=5, retry_delay_seconds=0, retry_condition_fn=lambda *_: True
    )
    proxy.on("GET", STREAM, CutStream(900))
    refusal = proxy.on("GET", STREAM, Answer(400, {"detail": "not now"}))

    @flow
    def streams() -> list[tuple[str, Any]]:
        return said(
            list(
                stubborn(
                    "burst",
                    {"bursts": 6, "size": 2, "pause": 0.4},
                    stream_mode="custom",
                    on_disconnect="continue",
                    credentials=through_proxy,
                )
            )
        )

    parts = streams()
    assert refusal.hits == 1
    assert [event for event, _ in parts] == ["metadata", *["custom"] * 12]
    assert [data["burst"] for _, data in parts[1:]] == [number // 2 for number in range(12)]


def test_flow_run_that_is_executed_again_reads_the_same_run_from_its_beginning(
    credentials: LangGraphCredentials,
) -> None:
    attempts: list[list[StreamPart]] = []

    @flow(retries=1)
    def streams() -> None:
        attempts.append([])
        for part in stream_run(
            "worker", {"sleep": 1}, on_disconnect="continue", credentials=credentials
        ):
            attempts[-1].append(part)
            if len(attempts) == 1 and part.event == "updates":
                raise LookupError

    streams()
    first, second = attempts
    assert second[: len(first)] == first
    assert len(second) == 4


def test_consumer_keeps_its_own_context_between_the_parts(credentials: LangGraphCredentials) -> None:
    @task
    def sees() -> bool:
        return TaskRunContext.get() is not None

    @flow
    def streams() -> list[bool]:
        inside = [
            TaskRunContext.get() is not None for _ in stream_run("worker", {}, credentials=credentials)
        ]
        return [*inside, sees()]

    @flow
    async def astreams() -> list[bool]:
        return [
            TaskRunContext.get() is not None
            async for _ in astream_run("worker", {}, credentials=credentials)
        ]

    assert streams() == [*[False] * 4, True]
    assert asyncio.run(astreams()) == [False] * 4


def test_run_that_was_started_for_a_reader_elsewhere_is_read_live(
    credentials: LangGraphCredentials,
) -> None:
    async def both() -> list[str]:
        handle = await astart_run(
            "worker",
            {"sleep": 0.5},
            stream_resumable=True,
            stream_mode="updates",
            credentials=credentials,
        )
        return [part.event async for part in ajoin_stream(handle, credentials=credentials)]

    assert asyncio.run(both()) == ["metadata", *["updates"] * 3]
