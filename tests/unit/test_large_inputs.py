"""What takes long for a large input is not done on the loop that all calls share."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_langgraph.canonical import is_small, plain
from prefect_langgraph.tasks._task import request_of

LARGE = {"words": [f"word {number}" for number in range(300_000)], "none": None}


async def _longest_pause(call: Any) -> float:
    """Seconds of CPU that a call took of its loop's OS thread at once, at the most.

    Not of the clock: on a busy machine that goes on while nothing is done.
    """
    longest, task = 0.0, asyncio.ensure_future(call)
    while not task.done():
        began = time.thread_time()
        await asyncio.sleep(0)
        longest = max(longest, time.thread_time() - began)
    await task
    return longest


def test_check_of_a_large_input_leaves_the_loop_to_others() -> None:
    began = time.thread_time()
    plain(LARGE)
    alone = time.thread_time() - began
    call = request_of("agent", LARGE, metadata=None, headers=None, options={})
    assert asyncio.run(_longest_pause(call)) < alone / 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda parts: st.lists(parts) | st.dictionaries(st.text(), parts),
    max_leaves=20,
)


@given(JSON)
def test_everyday_input_is_small(value: Any) -> None:
    assert is_small({"input": value})


@pytest.mark.parametrize(
    "value", [LARGE, "x" * 1_000_000, [[["x" * 100_000] * 10]], {"a": [{}] * 100_000}, object()]
)
def test_what_is_large_or_unknown_is_not_small(value: Any) -> None:
    assert not is_small(value)
