"""The process of a flow run killed at each step of a run's life, and the flow run executed again."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults._attempts import attempt, new_flow_run
from faults._books import RUN, THREAD, Books
from faults._flows import one_run
from proxy import Hold


def test_process_killed_before_and_after_each_step_makes_one_run(books: Books, tmp_path: Path) -> None:
    flow_run = new_flow_run(one_run, block=books.block, tag="a")
    hold = Hold()
    books.proxy.on("POST", RUN, hold)
    with attempt(one_run, flow_run, tmp_path) as first:
        assert hold.reached.wait(30)
        first.kill()
    with attempt(one_run, flow_run, tmp_path) as second:
        print(second.result())
        print(second.log())
    assert books.made == 1
    assert books.executed == {"a": 1}
    books.nothing_left()
