"""Reads the parts of one run, in order and each once, over as many connections as that takes.

A server keeps the parts of a resumable run under ids and sends those after `Last-Event-ID`, then what
comes live. Two things make this less simple than it sounds. Ids are not unique: the dev server gives
all parts of a millisecond the same. And what the run emits while a connection is being made may come
twice, once from what was kept and once live.

Invariants:
- Each new connection begins before the last part that was delivered, and meets it again: a gap shows.
- What the connection sends again is counted off, never guessed; where counting is not possible, the
  parts are read once more at a time when it is.
- A stream is whole when a connection that was opened after the run's end brought nothing new and came
  to its own end.
- Only what was lost on the server ends a stream early, by `StreamBrokenError`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import httpx
from langgraph_sdk.sse import SSEDecoder, aiter_lines_raw

from prefect_langgraph.errors import InvalidRequestError, StreamBrokenError
from prefect_langgraph.models import RunHandle, RunStatus, StreamPart
from prefect_langgraph.runs.poller import Poller
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.deployment import Deployment

FIRST = "metadata"
"""The event that every attempt of a run begins with."""

ENDS = frozenset({"error", "end"})
"""Events about the end. How a run ended is asked of the run: replayed streams do not have them."""

_FROM_THE_BEGINNING = "0"

_SAME_MILLISECOND_SECONDS = 0.01

_FIRST_PAUSE, _LAST_PAUSE = 0.05, 2.0

_MISSING_CONFIRMATIONS = 3


@dataclass
class Position:
    """How far a run's parts were delivered.

    Attributes:
        id: The server's id of the last part, None before the first.
        count: How many parts with that id were delivered.
        same: Those parts; the last of them, where reading began behind one.
    """

    id: str | None = None
    count: int = 0
    same: list[StreamPart] = field(default_factory=list)

    @classmethod
    def parse(cls, text: str | None) -> Position:
        """The position that the id of a `StreamPart` names; None and "0" are the beginning.

        Raises:
            InvalidRequestError: It is no such id.
        """
        if text is None or text in ("0", "0-0", "-1"):
            return cls()
        base, plus, number = text.partition("+") if isinstance(text, str) else ("", "", "")
        # Whatever else a server's ids look like, they count something.
        if not base[-1:].isdecimal() or (plus and not number.isdecimal()):
            raise InvalidRequestError(
                f"last_event_id={text!r} is not the id of a StreamPart. Give the id of the last part "
                "that came, or '0' for the beginning."
            )
        return cls(base, int(number or 0) + 1)

    @property
    def text(self) -> str | None:
        """As the id of the last part delivered."""
        return self.id if self.id is None or self.count == 1 else f"{self.id}+{self.count - 1}"

    @property
    def anchor(self) -> str:
        """An id that comes before those parts, so that they are sent again."""
        if self.id is None:
            return _FROM_THE_BEGINNING
        order = order_of(self.id)
        return f"{order[0] - 1}-0" if order is not None else self.id

    def take(self, part: StreamPart) -> StreamPart:
        """Deliver a part: the same with an id of its own."""
        if part.id != self.id:
            self.id, self.count, self.same = part.id, 0, []
        self.count += 1
        self.same.append(part)
        return part.model_copy(update={"id": self.text})


def order_of(id: str) -> tuple[int, int] | None:
    """`milliseconds-number`, as a pair that can be compared; None for ids of another form."""
    match = re.fullmatch(r"(\d+)-(\d+)", id)
    return (int(match[1]), int(match[2])) if match is not None else None


def kept(event: str) -> bool:
    """False for events that no server keeps: it keeps by the mode, and `messages/...` is none."""
    return not event.startswith("messages/")


class _Again(Exception):
    """The connection has to be made again."""


class _Pass:
    """One connection's parts, told apart into new ones and those that came before."""

    def __init__(self, position: Position, trusted: float) -> None:
        self._position = position
        self._order = order_of(position.id) if position.id is not None else None
        self._trusted = trusted
        self._met = 0  # parts met again of those with the position's id
        # Nothing to meet again at the beginning, nor where no earlier id can be asked for.
        self._caught_up = self._order is None
        self._rewound = False

    @property
    def missing(self) -> bool:
        """True while the parts that came last have not been met again."""
        return not self._caught_up

    def is_new(self, part: StreamPart) -> bool:
        """Whether a part was not delivered before.

        Raises:
            LookupError: Parts between are gone.
            _Again: It cannot be told on this connection.
        """
        position = self._position
        if position.id is None or part.id is None:
            return True
        order = order_of(part.id)
        if order is None:
            return part not in position.same
        last = order_of(position.id)
        if last is None:
            return True
        if order < last:
            # The live parts begin before where the kept ones ended.
            self._rewound, self._met = self._caught_up, 0
            return False
        if order > last:
            if not self._caught_up:
                raise LookupError
            self._rewound = False
            return True
        return self._is_new_sibling(part, order[0])

    def _is_new_sibling(self, part: StreamPart, millisecond: int) -> bool:
        """The same for a part with the id of those that came last."""
        position = self._position
        if not self._caught_up or self._rewound:
            if self._met < position.count:
                known = self._met - (position.count - len(position.same))
                if known >= 0 and position.same[known] != part:
                    raise LookupError
                self._met += 1
                self._caught_up = self._caught_up or self._met == position.count
                return False
            self._rewound = False
            return True
        if part in position.same and millisecond > self._trusted:
            # A second one like it, or the same one live after it came from what was kept.
            raise _Again
        return True


class StreamReader:
    """Reads one run's parts.

    Args:
        deployment: Where.
        http: A client whose connections may be held for long.
        handle: The run.
        position: Where to begin. Moves with the parts.
        deadline: The caller's.

    Attributes:
        began: True once a part came, or when reading begins behind the first.
    """

    def __init__(
        self,
        deployment: Deployment,
        http: httpx.AsyncClient,
        handle: RunHandle,
        *,
        position: Position,
        deadline: Deadline,
    ) -> None:
        self._deployment = deployment
        self._http = http
        self._handle = handle
        self._position = position
        self._deadline = deadline
        self._connections = 0
        self._from_start = False  # True when the first connection was there before the run began
        self._kept = True  # False once parts came without ids
        self._missing = False  # True when the last connection did not bring again what came last
        self._passing = False  # True once parts came that no server keeps
        self._clock: float | None = None  # the server's, at least, less ours, in milliseconds
        self.began = position.id is not None

    async def parts(self) -> AsyncGenerator[StreamPart, None]:
        """The parts after the position. Ends when the run has ended and every part was read.

        Raises:
            TimeoutError: The deadline passed.
            StreamBrokenError: Parts are lost.
            DeploymentError: The deployment refused the request.
        """
        pause, ended, misses = _FIRST_PAUSE, False, 0
        while True:
            before, whole = self._position.text, False
            try:
                async with contextlib.aclosing(self._connection()) as parts:
                    async for part in parts:
                        yield part
                whole = True
            except _Again:
                # By then the millisecond is over, and counting is safe.
                await asyncio.sleep(_SAME_MILLISECOND_SECONDS)
                continue
            except (httpx.TransportError, httpx.DecodingError):
                if not self._kept:
                    raise self._broken("the connection was cut") from None
            moved = self._position.text != before
            if whole and ended and not moved:
                if not self._missing:
                    return
                misses += 1
                if misses == _MISSING_CONFIRMATIONS:
                    raise self._broken("the server no longer has the last ones that came")
            ended = (await self._look()).ended
            if whole and not self._kept:
                if ended:
                    return
                raise self._broken("the connection was closed")
            pause = _FIRST_PAUSE if moved else min(pause * 2, _LAST_PAUSE)
            if not (whole and (ended or moved)) or self._missing:
                await self._sleep(pause)

    async def _look(self) -> RunStatus:
        return (
            await self._deployment.part(Poller).look(
                self._handle, deadline=self._deadline, patient=False
            )
        ).status

    async def _connection(self) -> AsyncGenerator[StreamPart, None]:
        """The new parts of one connection, to its end."""
        trusted = self._trusted()
        response = await self._deployment.send(
            self._open,
            doing=f"stream {self._handle}",
            deadline=self._deadline,
            patient=False,
        )
        self._connections += 1
        try:
            if self._connections == 1:
                self._from_start = await self._look() is RunStatus.PENDING
            passing = _Pass(self._position, math.inf if self._from_first() else trusted)
            async with contextlib.aclosing(self._events(response)) as events:
                async for part in events:
                    if part.event not in ENDS and (new := self._new(passing, part)) is not None:
                        yield new
            self._missing = passing.missing
        finally:
            await response.aclose()

    def _from_first(self) -> bool:
        """True on a connection that has seen the run from its first part, all of it live."""
        return self._from_start and self._connections == 1

    def _new(self, passing: _Pass, part: StreamPart) -> StreamPart | None:
        """A part as it is delivered, or None when it came before."""
        if not self.began and part.event != FIRST:
            raise self._broken("the server no longer has the first ones")
        self.began = True
        if part.id is None:
            self._kept = False
            return part
        if not kept(part.event):
            self._passing = True
            if not self._from_first():
                raise self._broken("it keeps none of the mode 'messages'; 'messages-tuple' is kept")
            return part.model_copy(update={"id": None})
        self._note_clock(part.id)
        try:
            if not passing.is_new(part):
                return None
        except LookupError:
            raise self._broken("the server no longer has the ones that followed") from None
        if self._passing and not self._from_first():
            raise self._broken("it keeps none of the mode 'messages'; 'messages-tuple' is kept")
        return self._position.take(part)

    async def _open(self) -> httpx.Response:
        handle = self._handle
        request = self._http.build_request(
            "GET",
            f"/threads/{handle.thread_id}/runs/{handle.run_id}/stream",
            headers={
                "accept": "text/event-stream",
                "cache-control": "no-store",
                "last-event-id": self._position.anchor,
            },
        )
        response = await self._http.send(request, stream=True)
        kind = response.headers.get("content-type", "")
        if response.is_success and "text/event-stream" in kind:
            return response
        try:
            if response.is_success:
                raise httpx.RemoteProtocolError("the answer is no event stream")
            error = httpx.HTTPStatusError(
                f"status {response.status_code}", request=request, response=response
            )
            error.add_note((await response.aread()).decode(errors="replace"))
            raise error
        finally:
            await response.aclose()

    async def _events(self, response: httpx.Response) -> AsyncGenerator[StreamPart, None]:
        """Whole events only: what a cut leaves of one comes again with the next connection."""
        decoder, between = SSEDecoder(), True
        async with contextlib.aclosing(aiter_lines_raw(response)) as lines:  # type: ignore[type-var]
            while True:
                async with asyncio.timeout(self._deadline.remaining()):
                    line = await anext(lines, None)
                if line is None:
                    if not between:
                        raise httpx.RemoteProtocolError("the stream ended within an event")
                    return
                text = bytes(line).rstrip(b"\r\n")
                between = not text
                found = decoder.decode(text)
                if found is not None and found.event:
                    event, *namespace = found.event.split("|")
                    yield StreamPart(
                        event=event, namespace=tuple(namespace), data=found.data, id=found.id
                    )

    def _note_clock(self, id: str) -> None:
        if (order := order_of(id)) is not None:
            clock = order[0] - time.monotonic() * 1000
            self._clock = clock if self._clock is None else max(self._clock, clock)

    def _trusted(self) -> float:
        """The last millisecond that is over on the server, as far as that is known."""
        return self._clock + time.monotonic() * 1000 - 1 if self._clock is not None else 0.0

    def _broken(self, reason: str) -> StreamBrokenError:
        return broken(self._handle, self._position.text, reason)

    async def _sleep(self, seconds: float) -> None:
        left = self._deadline.remaining()
        await asyncio.sleep(seconds if left is None else min(seconds, left))
        if self._deadline.passed:
            raise TimeoutError


def broken(handle: RunHandle, last: str | None, reason: str) -> StreamBrokenError:
    """The error for parts that are lost."""
    where = f"after the part {last}" if last is not None else "at the beginning"
    return StreamBrokenError(
        f"Parts of {handle} are missing {where}: {reason}. The run itself is not affected by this. "
        "A server keeps parts of runs that were started with stream_resumable=True, and for a while.",
        handle=handle,
        last_event_id=last,
    )
