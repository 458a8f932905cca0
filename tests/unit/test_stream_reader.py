"""`StreamReader` on a model of the server: every part once and in order, whatever the connections do.

The model follows the dev server: ids are milliseconds, which several parts share; a connection sends
what was kept and then what came live since it was opened, so some parts come twice. When that happens
cannot be chosen on the real server; here it is, part by part.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_langgraph import StreamBrokenError
from prefect_langgraph.errors import InvalidRequestError
from prefect_langgraph.models import RunHandle, RunStatus
from prefect_langgraph.streams import reader as reader_module
from prefect_langgraph.streams.reader import Position, StreamReader
from prefect_langgraph.transport.deadline import Deadline

HANDLE = RunHandle(run_id="r", thread_id="t", assistant_id="a", url="http://model")
START = 1_700_000_000_000.0


@dataclass
class Connection:
    """How one connection goes, in milliseconds and bytes."""

    opens_after: float = 0.0
    replay_takes: float = 0.0
    cut_after: int | None = None
    ends_cleanly: bool = False


@dataclass
class Model(httpx.AsyncByteStream):
    """A server with one run."""

    parts: list[tuple[float, int]]  # when it was put, and its data
    connections: list[Connection] = field(default_factory=list)
    forgets_before: float = 0.0
    now: float = START
    opened: int = 0

    @property
    def end(self) -> float:
        return self.parts[-1][0] + 0.5

    def id(self, index: int) -> str:
        return f"{int(self.parts[index][0])}-0"

    def chunk(self, index: int) -> bytes:
        event = "metadata" if index == 0 else "custom"
        data = json.dumps(self.parts[index][1])
        return f"event: {event}\r\ndata: {data}\r\nid: {self.id(index)}\r\n\r\n".encode()

    async def answer(self, request: httpx.Request) -> httpx.Response:
        plan = self.connections[self.opened] if self.opened < len(self.connections) else Connection()
        self.opened += 1
        assert self.opened < 500, "it reads for ever"
        self.now += plan.opens_after
        stream = self.body(request.headers["last-event-id"], self.now, plan)
        return httpx.Response(
            200,
            headers={"content-type": "text/event-stream"},
            stream=Body(stream, plan, self),
        )

    async def body(self, after: str, subscribed: float, plan: Connection) -> AsyncIterator[bytes]:
        replayed = subscribed + plan.replay_takes
        everything = range(len(self.parts))
        for index in everything:
            put = self.parts[index][0]
            if put <= replayed and self.id(index) > after and put >= self.forgets_before:
                self.now = max(self.now, put)
                yield self.chunk(index)
        self.now = max(self.now, replayed)
        if replayed >= self.end:
            return
        for index in everything:
            if self.parts[index][0] > subscribed:
                self.now = max(self.now, self.parts[index][0])
                yield self.chunk(index)
        self.now = max(self.now, self.end)

    async def look(self, handle: RunHandle, *, deadline: Deadline, patient: bool) -> Any:
        return SimpleNamespace(status=RunStatus.SUCCESS if self.now >= self.end else RunStatus.RUNNING)

    async def send(self, request: Any, **_: Any) -> Any:
        return await request()

    async def sleep(self, seconds: float) -> None:
        self.now += seconds * 1000


class Body(httpx.AsyncByteStream):
    def __init__(self, chunks: AsyncIterator[bytes], plan: Connection, model: Model) -> None:
        self._chunks, self._left, self._plan, self._model = chunks, plan.cut_after, plan, model

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            yield chunk if self._left is None else chunk[: self._left]
            if self._left is not None:
                self._left -= len(chunk)
                if self._left <= 0:
                    # What is kept comes at once: no proxy's time limit ends it so.
                    if self._plan.ends_cleanly and self._model.now < self._model.end:
                        return
                    raise httpx.ReadError("cut")


def read(model: Model, position: Position | None = None) -> list[tuple[int, str | None]]:
    async def all_parts() -> list[tuple[int, str | None]]:
        deployment: Any = SimpleNamespace(part=lambda kind: model, send=model.send)
        transport = httpx.MockTransport(model.answer)
        async with httpx.AsyncClient(transport=transport, base_url=HANDLE.url) as http:
            reader = StreamReader(
                deployment,
                http,
                HANDLE,
                position=position or Position(),
                deadline=Deadline(),
            )
            return [(part.data, part.id) async for part in reader.parts()]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            reader_module, "time", SimpleNamespace(monotonic=lambda: (model.now - START) / 1000 + 7)
        )
        patch.setattr(
            reader_module,
            "asyncio",
            SimpleNamespace(sleep=model.sleep, timeout=asyncio.timeout),
        )
        return asyncio.run(all_parts())


gaps = st.sampled_from([0.0, 0.1, 0.1, 0.2, 0.4, 1.0, 3.0, 40.0])
runs = st.lists(st.tuples(gaps, st.integers(0, 2)), min_size=1, max_size=25).map(
    lambda steps: [
        (START + sum(gap for gap, _ in steps[: index + 1]) + index * 1e-3, data)
        for index, (_, data) in enumerate(steps)
    ]
)
connections = st.lists(
    st.builds(
        Connection,
        opens_after=gaps,
        replay_takes=gaps,
        cut_after=st.none() | st.integers(1, 400),
        ends_cleanly=st.booleans(),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(runs, connections)
def test_connections_that_break_and_repeat_give_every_part_once_and_in_order(
    parts: list[tuple[float, int]], planned: list[Connection]
) -> None:
    assert [data for data, _ in read(Model(parts, planned))] == [data for _, data in parts]


@settings(max_examples=100, deadline=None)
@given(runs, connections, st.data())
def test_reading_on_from_any_part_gives_what_came_after_it(
    parts: list[tuple[float, int]], planned: list[Connection], data: st.DataObject
) -> None:
    ids = [name for _, name in read(Model(parts))]
    assert len(set(ids)) == len(ids)
    index = data.draw(st.integers(0, len(parts) - 1))
    model = Model(parts, planned, now=parts[index][0] + 1)
    assert [found for found, _ in read(model, Position.parse(ids[index]))] == [
        item for _, item in parts[index + 1 :]
    ]


@pytest.mark.parametrize("forgotten", [1, 2, 3, 4])
def test_server_that_forgot_parts_in_between_is_found_out(forgotten: int) -> None:
    parts = [(START + 10.0 * index, index) for index in range(5)]
    cut = Connection(cut_after=2 * len(Model(parts).chunk(0)))
    model = Model(parts, [cut], forgets_before=0.0)

    async def answer(request: httpx.Request) -> httpx.Response:
        if model.opened == 1:
            model.forgets_before = parts[forgotten][0] + 1 if forgotten < 4 else model.end + 1
        return await Model.answer(model, request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "answer", answer, raising=False)
        with pytest.raises(StreamBrokenError) as caught:
            read(model)
    assert caught.value.handle == HANDLE
    assert caught.value.last_event_id == Model(parts).id(1)


def test_stream_that_does_not_begin_with_the_first_part_is_found_out() -> None:
    parts = [(START + 10.0 * index, index) for index in range(3)]
    with pytest.raises(StreamBrokenError, match="the first ones"):
        read(Model(parts, forgets_before=START + 5))


@pytest.mark.parametrize("text", ["", "+1", "1-0+x", cast(str, 7)])
def test_text_that_is_no_id_of_a_part_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="last_event_id"):
        Position.parse(text)
