"""What crosses the boundary: frozen, JSON, picklable, and one value to Prefect's `.map`."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.utilities.collections import StopVisiting, visit_collection
from pydantic import BaseModel, ValidationError

from prefect_langgraph import (
    CronSpec,
    HeaderPolicy,
    LangGraphAssistant,
    LangGraphCredentials,
    RunHandle,
    errors,
    models,
)
from prefect_langgraph.models import RunItem, RunStatus
from prefect_langgraph.results import FanOutResult, RunFailure, RunResult, Usage

HANDLE = RunHandle(run_id="1f0c", thread_id="9b2e", assistant_id="agent", url="http://localhost:2024")


def result(status: RunStatus = RunStatus.SUCCESS, **fields: Any) -> RunResult:
    return RunResult(handle=HANDLE, status=status, **fields)


def of(*statuses: RunStatus) -> FanOutResult:
    return FanOutResult(results=tuple(result(status, values={"s": status}) for status in statuses))


MIXED = of(RunStatus.SUCCESS, RunStatus.ERROR, RunStatus.SUCCESS, RunStatus.INTERRUPTED)
MODELS = [
    HANDLE,
    HANDLE.model_copy(update={"credentials": "default", "key": "k", "owns_thread": True}),
    RunItem(input={"a": 1}),
    RunFailure(error="ValueError", message="boo"),
    Usage(input_tokens=1),
    result(values={"a": [1, None]}, usage=Usage(total_tokens=3)),
    result(RunStatus.INTERRUPTED, interrupts=({"id": "1", "value": {"q": "?"}},)),
    MIXED,
    FanOutResult(),
]


# JSON and pickling


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_model_survives_json(model: models.Model) -> None:
    assert type(model).model_validate_json(model.model_dump_json()) == model


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_model_survives_pickling(model: models.Model) -> None:
    assert pickle.loads(pickle.dumps(model)) == model  # noqa: S301 - our own


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_model_is_frozen_and_refuses_unknown_fields(model: models.Model) -> None:
    field = next(iter(type(model).model_fields))
    with pytest.raises(ValidationError):
        setattr(model, field, None)
    with pytest.raises(ValidationError):
        type(model).model_validate({**model.model_dump(), "unknown": 1})


@given(
    st.builds(
        RunHandle,
        run_id=st.text(),
        thread_id=st.text(),
        assistant_id=st.text(),
        url=st.text(),
        credentials=st.none() | st.text(),
        key=st.none() | st.text(),
        owns_thread=st.booleans(),
        origin=st.sampled_from(["started", "adopted", "restarted"]),
    )
)
def test_any_handle_survives_json(handle: RunHandle) -> None:
    assert RunHandle.model_validate_json(handle.model_dump_json()) == handle


def test_handle_is_small_and_has_no_field_for_a_secret() -> None:
    assert set(RunHandle.model_fields) == {
        "run_id",
        "thread_id",
        "assistant_id",
        "url",
        "credentials",
        "key",
        "owns_thread",
        "origin",
        "item_key",
        "trace_url",
        "studio_url",
    }
    assert len(HANDLE.model_dump_json()) < 400


def test_handle_can_be_a_key_and_a_member_of_a_set() -> None:
    assert {HANDLE, HANDLE.model_copy()} == {HANDLE}


# One value to Prefect


@pytest.mark.parametrize("one", [HANDLE, LangGraphCredentials(url="http://localhost:2024")])
def test_what_is_one_value_cannot_be_iterated_by_accident(one: Any) -> None:
    with pytest.raises(TypeError, match=r"is one value: give \.map a list of them"):
        iter(one)


def test_prefects_visit_finds_a_handle_whole() -> None:
    nested = {"handles": [HANDLE, HANDLE], "one": HANDLE}
    seen = []

    def note(expression: Any) -> Any:
        if isinstance(expression, RunHandle):
            seen.append(expression)
        return expression

    again = visit_collection(nested, visit_fn=note, return_data=True)
    assert again == nested
    assert seen == [HANDLE] * 3


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_prefects_visit_rebuilds_a_model_as_it_was(model: models.Model) -> None:
    # Prefect looks for futures and states in all arguments of a task in this way.
    def stop_at_text(expression: Any) -> Any:
        if isinstance(expression, str):
            raise StopVisiting
        return expression

    assert visit_collection(model, visit_fn=lambda expression: expression, return_data=True) == model
    assert visit_collection(model, visit_fn=stop_at_text, return_data=True, max_depth=1) == model


def test_dictionary_of_a_handle_has_its_fields() -> None:
    assert dict(HANDLE) == HANDLE.model_dump()


# Statuses and results


@pytest.mark.parametrize("status", list(RunStatus))
def test_status_has_ended_unless_the_run_is_on_its_way(status: RunStatus) -> None:
    assert status.ended is (status not in {RunStatus.PENDING, RunStatus.RUNNING})


def test_success_and_what_is_on_its_way_raise_nothing() -> None:
    for status in (RunStatus.SUCCESS, RunStatus.PENDING, RunStatus.RUNNING):
        assert result(status).raise_for_failure().status is status


def test_failure_is_raised_as_its_typed_error() -> None:
    with pytest.raises(errors.RunFailedError, match="ValueError: boo"):
        result(RunStatus.ERROR, error=RunFailure(error="ValueError", message="boo")).raise_for_failure()


def test_result_of_an_adopted_run_says_so() -> None:
    adopted = HANDLE.model_copy(update={"origin": "adopted"})
    assert RunResult(handle=adopted, status=RunStatus.SUCCESS).origin == "adopted"


# Many


def test_fan_out_result_is_a_sequence_in_input_order() -> None:
    assert isinstance(MIXED, Sequence)
    assert len(MIXED) == 4
    assert list(MIXED) == list(MIXED.results)
    assert MIXED[0] == MIXED.results[0]
    assert MIXED[-1].status is RunStatus.INTERRUPTED
    assert [item.status for item in MIXED[1:3]] == [RunStatus.ERROR, RunStatus.SUCCESS]
    assert MIXED[1] in MIXED
    assert MIXED.index(MIXED[3]) == 3
    assert list(reversed(MIXED)) == list(MIXED)[::-1]
    with pytest.raises(IndexError):
        _ = MIXED[4]


def test_fan_out_result_tells_values_failures_and_counts() -> None:
    assert MIXED.values == [{"s": "success"}, {"s": "error"}, {"s": "success"}, {"s": "interrupted"}]
    assert [item.status for item in MIXED.failed] == [RunStatus.ERROR, RunStatus.INTERRUPTED]
    assert MIXED.counts == {RunStatus.SUCCESS: 2, RunStatus.ERROR: 1, RunStatus.INTERRUPTED: 1}


def test_empty_fan_out_result_is_empty_and_fine() -> None:
    nothing = FanOutResult()
    assert not nothing
    assert nothing.counts == {}
    assert nothing.raise_for_failures() is nothing


def test_failures_are_raised_as_one_group_that_holds_everything() -> None:
    with pytest.raises(errors.FanOutError) as caught:
        MIXED.raise_for_failures()
    error = caught.value
    assert error.result == MIXED
    assert [type(one) for one in error.exceptions] == [
        errors.RunFailedError,
        errors.RunInterruptedError,
    ]
    assert "2 of 4 runs did not succeed (1 error, 1 interrupted, 2 success)" in error.message


def test_failures_of_one_kind_can_be_caught_from_the_group() -> None:
    caught: list[BaseException] = []
    try:
        MIXED.raise_for_failures()
    except* errors.RunInterruptedError as group:
        caught += group.exceptions
    except* errors.RunFailedError as group:
        caught += group.exceptions
    assert {type(error) for error in caught} == {errors.RunInterruptedError, errors.RunFailedError}


def test_usage_of_two_results_adds_up() -> None:
    total = Usage(input_tokens=1, output_tokens=2, total_tokens=3) + Usage(input_tokens=10)
    assert total == Usage(input_tokens=11, output_tokens=2, total_tokens=3)


REFUSED: dict[type[BaseModel], dict[str, Any]] = {
    CronSpec: {"name": "a", "assistant_id": "a", "schedule": {"a": "s3cr3t"}, "timezone": ["s3cr3t"]},
    HeaderPolicy: {"includes": "s3cr3t"},
    LangGraphAssistant: {"credentials": {"url": "http://ada:s3cr3t@a"}, "assistant_id": "a"},
    LangGraphCredentials: {"url": "http://ada:s3cr3t@localhost:2024"},
    RunItem: {"config": "s3cr3t", "s": "s3cr3t"},
}


@pytest.mark.parametrize("model", REFUSED)
def test_what_a_model_refuses_is_not_in_its_error_nor_pickled_with_it(model: type[BaseModel]) -> None:
    with pytest.raises(ValidationError) as raised:
        model(**REFUSED[model])
    error = raised.value
    shown = f"{error} {error!r} {error.errors()} {error.json()} {pickle.dumps(error)!r}"
    assert "s3cr3t" not in shown
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 - made here


def test_item_of_a_fan_out_shows_no_input() -> None:
    given = {"password": "s3cr3t"}
    assert "s3cr3t" not in repr(RunItem(input=given, config=given, context=given, metadata=given))


def failed(error: str, message: str, count: int) -> list[RunResult]:
    return [result(RunStatus.ERROR, error=RunFailure(error=error, message=message))] * count


def test_message_of_a_fan_out_error_says_why_most_frequent_first() -> None:
    """It is all that a list of flow runs and a notification show."""
    many = FanOutResult(
        results=(
            *failed("KeyError", "'name'", 2),
            *[result()] * 5,
            *failed("QuotaError", "none left\nask again tomorrow", 40),
            *[result(RunStatus.TIMEOUT)] * 3,
            *failed("ValueError", "x" * 5000, 1),
        )
    )
    with pytest.raises(errors.FanOutError) as caught:
        many.raise_for_failures()
    message = str(caught.value)
    assert message.startswith("46 of 51 runs did not succeed")
    whys = ["40x QuotaError: none left ask again tomorrow", "3x timeout", "2x KeyError: 'name'"]
    assert [message.index(why) for why in whys] == sorted(message.index(why) for why in whys)
    assert "1 other reason" in message
    assert len(message) < 700
    assert "on_failure" not in message


def test_message_of_a_fan_out_error_counts_what_differs_in_each_run_by_its_class() -> None:
    many = FanOutResult(
        results=tuple(
            item for row in range(500) for item in failed("ValueError", f"row {row} has no date", 1)
        )
    )
    with pytest.raises(errors.FanOutError, match="500x ValueError, such as: row 0 has no date"):
        many.raise_for_failures()
