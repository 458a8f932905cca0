"""An asynchronous generator on the shared loop, read from elsewhere."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator

import pytest

from prefect_langgraph.errors import LangGraphError
from prefect_langgraph.transport.generators import SIZE, AsyncFeed, FeedControl, SyncFeed, feed_control
from prefect_langgraph.transport.loop import io_loop
from support.waiting import PATIENCE


class Source:
    """Counts, and takes its time to clean up."""

    def __init__(self, *, fails_after: int | None = None) -> None:
        self.given = 0
        self.fails_after = fails_after
        self.full = threading.Event()
        self.cleaned = threading.Event()

    async def items(self) -> AsyncGenerator[int, None]:
        try:
            while self.given != self.fails_after:
                self.given += 1
                if self.given > SIZE:
                    self.full.set()
                yield self.given
            raise LookupError("the source's own")
        finally:
            await asyncio.sleep(0.05)
            self.cleaned.set()


def test_items_come_in_order_and_then_the_generators_own_error() -> None:
    source, seen = Source(fails_after=100), []
    with pytest.raises(LookupError), SyncFeed(source.items) as feed:  # noqa: PT012 - what came before counts
        for item in feed:
            seen.append(item)
    assert seen == list(range(1, 101))


def test_generator_waits_for_a_slow_consumer() -> None:
    source = Source()
    with SyncFeed(source.items) as feed:
        assert next(feed) == 1
        assert source.full.wait(PATIENCE)
        # One was taken, so many wait, and one is held by the generator's task.
        assert source.given <= SIZE + 2


def test_consumer_that_leaves_waits_for_the_clean_up() -> None:
    source = Source()
    with SyncFeed(source.items) as feed:
        next(feed)
    assert source.cleaned.is_set()


def test_feed_that_was_stopped_before_it_is_left_still_cleans_up() -> None:
    source = Source()
    with SyncFeed(source.items) as feed:
        next(feed)
        feed.stop()
        assert list(feed) == []
    assert source.cleaned.is_set()


def test_asynchronous_feed_that_was_stopped_before_it_is_left_still_cleans_up() -> None:
    source = Source()

    async def consume() -> list[int]:
        async with AsyncFeed(source.items) as feed:
            assert await anext(feed) == 1
            feed.stop()
            return [item async for item in feed]

    assert asyncio.run(consume()) == []
    assert source.cleaned.is_set()


def test_control_ends_the_feed_that_is_under_way() -> None:
    source, control = Source(), FeedControl()
    token = feed_control.set(control)
    try:
        with SyncFeed(source.items) as feed:
            next(feed)
            control.stop()
            assert list(feed) == []
    finally:
        feed_control.reset(token)
    assert source.cleaned.is_set()


def test_loop_that_is_closed_under_the_consumer_ends_the_generator() -> None:
    source = Source()

    async def begin() -> AsyncFeed[int]:
        feed = AsyncFeed(source.items)
        await feed.__aenter__()
        assert await anext(feed) == 1
        return feed

    loop = asyncio.new_event_loop()
    feed = loop.run_until_complete(begin())
    loop.close()
    feed.stop()
    assert source.cleaned.wait(PATIENCE)


def test_synchronous_feed_on_the_shared_loop_is_refused() -> None:
    async def consume() -> None:
        with SyncFeed(Source().items):
            pass

    with pytest.raises(LangGraphError, match="wait for itself"):
        io_loop().run(consume)
