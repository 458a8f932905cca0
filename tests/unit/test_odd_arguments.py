"""Arguments that cannot be sent end in a clear error, before Prefect or a server is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from prefect_langgraph import (
    InvalidRequestError,
    LangGraphCredentials,
    afan_out,
    fan_out,
    run_assistant,
    run_stateless,
    start_runs,
)
from prefect_langgraph.arguments import check_positive
from prefect_langgraph.ownership.keys import Key

NOWHERE = LangGraphCredentials(url="http://127.0.0.1:9")
HALF = "hush\ud800"


def nested(levels: int) -> Any:
    value: Any = "hush"
    for _ in range(levels):
        value = {"in": [value]}
    return value


def endless() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value", [nested(200), nested(5000), endless()], ids=["200", "5000", "endless"]
)
@pytest.mark.parametrize(
    "call",
    [
        lambda value: run_stateless("agent", value, credentials=NOWHERE),
        lambda value: start_runs("agent", [value], credentials=NOWHERE),
        lambda value: run_stateless.submit("agent", value, credentials=NOWHERE),
        lambda value: run_stateless.map("agent", [value], credentials=NOWHERE),
        lambda value: fan_out("agent", [value], credentials=NOWHERE),
        lambda value: run_assistant("calculator", value),
    ],
)
def test_arguments_nested_too_deeply_are_refused(call: Callable[[Any], Any], value: Any) -> None:
    with pytest.raises(InvalidRequestError, match="250 levels"):
        call(value)


@pytest.mark.parametrize(
    "call",
    [
        lambda: fan_out("agent", [{"text": HALF}], credentials=NOWHERE),
        lambda: run_assistant("calculator", {"text": HALF}),
        lambda: Key.chosen(HALF),
    ],
)
def test_text_with_half_a_character_is_refused_and_not_shown(call: Callable[[], Any]) -> None:
    with pytest.raises(InvalidRequestError, match="surrogate") as refused:
        call()
    assert "hush" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("seconds", [10**400, 10**5000], ids=["400", "5000"])
def test_limit_that_is_no_float_is_refused(seconds: int) -> None:
    with pytest.raises(InvalidRequestError, match="None for no limit"):
        check_positive("max_wait_seconds", seconds)
    with pytest.raises(InvalidRequestError, match="None for no limit"):
        check_positive("max_wait_seconds", -seconds)


def test_too_large_parameters_of_run_assistant_are_refused_and_not_shown() -> None:
    with pytest.raises(InvalidRequestError, match=r"512 KB.*run_stateless") as refused:
        run_assistant("calculator", {"text": "hush" * 150_000})
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    "given",
    [
        (item for item in [{}, {}]),
        iter([{}]),
        map(dict, [()]),
        {"question": "?"},
        "question",
        b"question",
    ],
    ids=["generator", "iterator", "map", "mapping", "text", "bytes"],
)
def test_inputs_that_are_no_list_are_refused(given: Any) -> None:
    with pytest.raises(InvalidRequestError, match="give a list with one input"):
        fan_out("agent", given)
    with pytest.raises(InvalidRequestError, match="give a list with one input"):
        asyncio.run(afan_out("agent", given))
