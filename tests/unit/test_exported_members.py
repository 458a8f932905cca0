"""The public surface: it changes on purpose, has its twins, is documented, and follows the SDK."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import pytest
from langgraph_sdk.client import CronClient, RunsClient, ThreadsClient
from langgraph_sdk.schema import RunCreate
from prefect import Flow, Task

import prefect_langgraph

BLOCKS = {"LangGraphAssistant", "LangGraphCredentials", "LangGraphRun"}
MODELS = {
    "Answer",
    "Budget",
    "CronHandle",
    "CronPlan",
    "CronSpec",
    "FanOutResult",
    "FanOutUsage",
    "HeaderPolicy",
    "Price",
    "Question",
    "ResumeEntry",
    "ResumeReport",
    "RunFailure",
    "RunHandle",
    "RunItem",
    "RunResult",
    "RunStatus",
    "StreamPart",
    "SweepEntry",
    "SweepReport",
    "Token",
    "Usage",
}
ERRORS = {
    "AuthenticationError",
    "DeploymentError",
    "FanOutError",
    "HeaderPolicyError",
    "InvalidRequestError",
    "JoinTimeoutError",
    "LangGraphError",
    "NotFoundError",
    "RateLimitedError",
    "RunCancelledError",
    "RunError",
    "RunFailedError",
    "RunInterruptedError",
    "RunLostError",
    "RunTimeoutError",
    "ScheduleError",
    "StreamBrokenError",
    "ThreadBusyError",
    "UnreachableError",
}
TASKS = {
    "cancel_run",
    "cancel_runs",
    "create_cron",
    "create_thread",
    "delete_cron",
    "delete_thread",
    "get_run",
    "get_thread_state",
    "join_run",
    "join_runs",
    "join_stream",
    "reconcile_crons",
    "run_on_thread",
    "run_stateless",
    "search_crons",
    "start_run",
    "start_runs",
    "stream_run",
    "stream_to_logs",
    "update_cron",
    "update_thread_state",
}
FLOWS = {"fan_out", "resume_waiting", "sweep"}
FLOWS_WITHOUT_TWIN = {"cron_window", "reconcile_crons_flow", "run_assistant"}
FUNCTIONS = {"ask_interrupts", "suspend_until_ended"}
HELPERS = {"next_fires", "temporary_cron", "with_finalizer"}
TWINS = {f"a{name}" for name in TASKS | FLOWS | FUNCTIONS}
PUBLIC = {
    *BLOCKS,
    *MODELS,
    *ERRORS,
    *TASKS,
    *FLOWS,
    *FLOWS_WITHOUT_TWIN,
    *FUNCTIONS,
    *TWINS,
    *HELPERS,
    "__version__",
}
OBJECTS = sorted(PUBLIC - {"__version__"})


def public(name: str) -> Any:
    return getattr(prefect_langgraph, name)


def function_of(name: str) -> Callable[..., Any]:
    found = public(name)
    function: Callable[..., Any] = found.fn if isinstance(found, Task | Flow) else found
    return function


def parameters_of(name: str) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function_of(name)).parameters)


# What there is


def test_public_names_are_these_and_no_others() -> None:
    assert set(prefect_langgraph.__all__) == PUBLIC
    assert list(prefect_langgraph.__all__) == sorted(prefect_langgraph.__all__)
    assert set(dir(prefect_langgraph)) >= PUBLIC


@pytest.mark.parametrize("name", OBJECTS)
def test_public_name_leads_to_the_object_of_that_name(name: str) -> None:
    found = function_of(name)
    assert found.__name__ == name
    assert found.__module__.startswith("prefect_langgraph.")


def test_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="no attribute 'run_forever'"):
        public("run_forever")


@pytest.mark.parametrize("name", sorted(TASKS))
def test_task_is_a_prefect_task_and_its_twin_too(name: str) -> None:
    assert isinstance(public(name), Task)
    assert isinstance(public(f"a{name}"), Task)


@pytest.mark.parametrize("name", sorted(FLOWS | FLOWS_WITHOUT_TWIN))
def test_flow_is_a_prefect_flow(name: str) -> None:
    assert isinstance(public(name), Flow)


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_error_is_one_of_ours(name: str) -> None:
    assert issubclass(public(name), prefect_langgraph.LangGraphError)


def test_every_task_of_the_package_is_public_with_its_twin() -> None:
    found = {name for name in PUBLIC if isinstance(getattr(prefect_langgraph, name), Task)}
    assert found == TASKS | {f"a{name}" for name in TASKS}


def test_importing_the_package_does_no_work() -> None:
    script = (
        "import sys; before = set(sys.modules); import prefect_langgraph; "
        "new = set(sys.modules) - before; "
        "print(sorted(n for n in new if n.split('.')[0] in {'prefect', 'langgraph_sdk', 'httpx'}))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


# Twins


@pytest.mark.parametrize("name", sorted(TASKS | FLOWS | FUNCTIONS))
def test_twin_takes_the_same_arguments(name: str) -> None:
    plain = inspect.signature(function_of(name))
    twin = inspect.signature(function_of(f"a{name}"))
    assert list(plain.parameters.values()) == list(twin.parameters.values())
    assert plain.return_annotation == twin.return_annotation or (
        "Generator" in str(plain.return_annotation) and "AsyncGenerator" in str(twin.return_annotation)
    )


@pytest.mark.parametrize("name", sorted(TASKS | FLOWS))
def test_plain_form_is_synchronous_and_its_twin_asynchronous(name: str) -> None:
    plain, twin = function_of(name), function_of(f"a{name}")
    assert not inspect.iscoroutinefunction(plain)
    assert not inspect.isasyncgenfunction(plain)
    assert inspect.iscoroutinefunction(twin) or inspect.isasyncgenfunction(twin)
    assert inspect.isgeneratorfunction(plain) is inspect.isasyncgenfunction(twin)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_twins_share_name_retries_and_caching(name: str) -> None:
    plain, twin = public(name), public(f"a{name}")
    for setting in ("name", "retries", "retry_delay_seconds", "retry_condition_fn", "cache_policy"):
        assert getattr(plain, setting) == getattr(twin, setting)


@pytest.mark.parametrize("name", sorted(TASKS | FLOWS))
def test_twins_name_each_other(name: str) -> None:
    assert f"`a{name}`" in (inspect.getdoc(function_of(name)) or "")
    assert f"`{name}`" in (inspect.getdoc(function_of(f"a{name}")) or "")


JOB_TWINS = {
    "LangGraphAssistant": {"trigger": "atrigger"},
    "LangGraphRun": {
        "wait_for_completion": "await_for_completion",
        "fetch_result": "afetch_result",
        "cancel": "acancel",
    },
}


@pytest.mark.parametrize(
    ("block", "plain", "twin"),
    [(block, *pair) for block, pairs in JOB_TWINS.items() for pair in pairs.items()],
)
def test_method_of_a_block_has_its_twin(block: str, plain: str, twin: str) -> None:
    one, other = getattr(public(block), plain), getattr(public(block), twin)
    assert inspect.signature(one) == inspect.signature(other)
    assert inspect.iscoroutinefunction(other)
    assert not inspect.iscoroutinefunction(one)
    assert f"`{twin}`" in (inspect.getdoc(one) or "")
    assert f"`{plain}`" in (inspect.getdoc(other) or "")


# Documentation


@pytest.mark.parametrize("name", OBJECTS)
def test_public_name_has_a_docstring_of_its_own(name: str) -> None:
    found = function_of(name)
    doc = found.__doc__ if not inspect.isclass(found) else vars(found).get("__doc__")
    assert doc
    assert doc.strip().splitlines()[0].rstrip().endswith((".", ":"))


def members() -> list[tuple[str, str]]:
    """Public methods and properties that our public classes add."""
    return [
        (name, member)
        for name in sorted(BLOCKS | MODELS)
        for member, value in vars(public(name)).items()
        if not member.startswith("_")
        and (inspect.isfunction(value) or isinstance(value, property | classmethod))
        and not member.startswith("model_")
    ]


@pytest.mark.parametrize(("name", "member"), members())
def test_public_member_has_a_docstring(name: str, member: str) -> None:
    value = vars(public(name))[member]
    function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
    assert function.__doc__


@pytest.mark.parametrize("name", sorted(TASKS | FLOWS | FLOWS_WITHOUT_TWIN | {"temporary_cron"}))
def test_docstring_of_a_task_explains_every_argument_and_has_an_example(name: str) -> None:
    doc = inspect.getdoc(function_of(name)) or ""
    assert "Example:" in doc
    assert ">>>" in doc
    explained = doc.partition("Args:")[2].partition("\nReturns:")[0]
    missing = [parameter for parameter in parameters_of(name) if f"{parameter}:" not in explained]
    assert missing == []


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_docstring_of_a_block_has_an_example(name: str) -> None:
    assert ">>>" in (inspect.getdoc(public(name)) or "")


# The SDK's parameters

OURS = {
    "credentials": "which deployment",
    "max_wait_seconds": "the caller's deadline",
    "on_timeout": "what becomes of the run then",
    "idempotency_key": "replaces the derived key",
    "once": "whether there is a key",
    "detached": "whether the run outlives its flow run",
    "on_interrupt": "whether waiting for a person is an error",
    "on_disconnect": "what becomes of the run when the consumer stops early",
    "handle": "which run: its ids, its deployment",
    "cron": "which cron, and on which deployment",
    "thread_id": "one task makes crons with and without a thread",
    "on_run_completed": "what becomes of the threads of a cron without one",
    "allow_seconds": "seconds in a schedule are meant",
    "lease": "how long the cron lives without its flow run",
    "owner": "finds the crons that reconcile_crons keeps for this owner",
    "inputs": "one for each run, or RunItems",
    "max_in_flight": "how many runs are on the server at once",
    "headers": "sent with each request of the batch",
    "after_seconds": "the server takes it, though the SDK's type does not name it",
    "durability": "the server takes it, though the SDK's type does not name it",
}
FOR_ALL = {
    "self": "",
    "params": "query parameters that no endpoint of the server's documents",
}
FOR_RUNS = {
    **FOR_ALL,
    "checkpoint_during": "deprecated in favour of durability",
    "on_run_created": "a callback of the client's; the handle is returned",
    "on_completion": "a stateless run has a thread of its own here, deleted once its result was read",
}
FOR_CRONS = {**FOR_ALL, "checkpoint_during": "deprecated in favour of durability"}
NO_THREAD = {
    "thread_id": "a stateless run's thread is its own",
    "checkpoint": "there is no earlier state",
    "checkpoint_id": "there is no earlier state",
    "multitask_strategy": "nobody else is on its thread",
    "if_not_exists": "its thread is always made for it",
    "strict_resume": "there is nothing to resume",
}
NO_STREAM = {
    "stream_mode": "nobody streams a run that is waited for",
    "stream_subgraphs": "nobody streams a run that is waited for",
    "stream_resumable": "nobody streams a run that is waited for",
}
WAITS = {
    "on_disconnect": "on_timeout says what becomes of the run of a caller that left",
    "raise_error": "what is not a success is raised, always",
}

# Task, the SDK's method, what is left out and why, what is added.
SDK: list[tuple[str, Any, dict[str, str], set[str]]] = [
    (
        "start_run",
        RunsClient.create,
        FOR_RUNS,
        {"credentials", "max_wait_seconds", "idempotency_key", "once", "detached"},
    ),
    (
        "run_on_thread",
        RunsClient.create,
        {**FOR_RUNS, **NO_STREAM},
        {"credentials", "max_wait_seconds", "on_timeout", "on_interrupt", "idempotency_key", "once"},
    ),
    (
        "run_on_thread",
        RunsClient.wait,
        {**FOR_RUNS, **WAITS},
        {"credentials", "max_wait_seconds", "on_timeout", "on_interrupt", "idempotency_key", "once"},
    ),
    (
        "run_stateless",
        RunsClient.wait,
        {**FOR_RUNS, **WAITS, **NO_THREAD},
        {"credentials", "max_wait_seconds", "on_timeout", "on_interrupt", "idempotency_key", "once"},
    ),
    (
        "create_thread",
        ThreadsClient.create,
        FOR_ALL,
        {"credentials", "idempotency_key", "once"},
    ),
    (
        "stream_run",
        RunsClient.stream,
        {
            **FOR_RUNS,
            "feedback_keys": "feedback is LangSmith's",
            "stream_resumable": "always on: a cut connection goes on where it was",
            "version": "a StreamPart is the same for both",
        },
        {"credentials", "max_wait_seconds", "on_timeout", "on_interrupt", "idempotency_key", "once"},
    ),
    (
        "join_stream",
        RunsClient.join_stream,
        {
            **FOR_ALL,
            "run_id": "in the handle",
            "thread_id": "in the handle",
            "cancel_on_disconnect": "on_disconnect, which a short cut does not trigger",
            "headers": "reading a stream configures nothing",
        },
        {"credentials", "handle", "max_wait_seconds", "on_timeout", "on_interrupt", "on_disconnect"},
    ),
    (
        "create_cron",
        CronClient.create,
        FOR_CRONS,
        {"credentials", "thread_id", "allow_seconds", "detached", "idempotency_key", "lease", "once"},
    ),
    (
        "create_cron",
        CronClient.create_for_thread,
        FOR_CRONS,
        {
            "credentials",
            "on_run_completed",
            "allow_seconds",
            "detached",
            "idempotency_key",
            "lease",
            "once",
        },
    ),
    (
        "update_cron",
        CronClient.update,
        {**FOR_ALL, "cron_id": "the cron, or its id"},
        {"credentials", "cron", "allow_seconds"},
    ),
    (
        "delete_cron",
        CronClient.delete,
        {**FOR_ALL, "cron_id": "the cron, or its id"},
        {"credentials", "cron"},
    ),
    (
        "search_crons",
        CronClient.search,
        {
            **FOR_ALL,
            "offset": "all pages are read, as far as limit goes",
            "select": "a CronHandle has its fields",
            "sort_by": "pages need one order",
            "sort_order": "pages need one order",
        },
        {"credentials", "owner"},
    ),
    ("get_thread_state", ThreadsClient.get_state, FOR_ALL, {"credentials"}),
    ("update_thread_state", ThreadsClient.update_state, FOR_ALL, {"credentials"}),
    ("delete_thread", ThreadsClient.delete, FOR_ALL, {"credentials"}),
]


@pytest.mark.parametrize(
    ("name", "method", "left_out", "added"),
    SDK,
    ids=[f"{name}-{method.__qualname__}" for name, method, *_ in SDK],
)
def test_task_takes_the_sdks_parameters_under_their_names(
    name: str, method: Any, left_out: dict[str, str], added: set[str]
) -> None:
    theirs = set(inspect.signature(method).parameters)
    own = set(parameters_of(name))
    assert own - theirs == added
    assert theirs - own == left_out.keys() & theirs
    assert not own & left_out.keys()
    assert added <= OURS.keys()


def test_batch_takes_what_the_sdk_says_a_run_of_a_batch_has() -> None:
    theirs = set(RunCreate.__annotations__)
    own = parameters_of("start_runs").keys()
    assert theirs - own == {
        "input",  # one for each run: inputs
        "thread_id",  # each run has one of its own
        "checkpoint_id",  # there is no earlier state
        "multitask_strategy",  # nobody else is on its thread
    }
    assert own - theirs <= OURS.keys()


def test_nothing_is_left_out_that_the_sdk_does_not_have() -> None:
    theirs = {
        parameter
        for method in (RunsClient.create, RunsClient.wait, ThreadsClient.create)
        for parameter in inspect.signature(method).parameters
    }
    assert {*FOR_RUNS, *NO_THREAD, *NO_STREAM, *WAITS} <= theirs


# The block that `run_assistant` names holds the credentials.
@pytest.mark.parametrize("name", sorted((TASKS | TWINS | FLOWS_WITHOUT_TWIN) - {"run_assistant"}))
def test_every_call_can_be_told_the_deployment_and_defaults_to_the_saved_one(name: str) -> None:
    assert parameters_of(name)["credentials"].default is None


@pytest.mark.parametrize("name", sorted(TASKS))
def test_limits_default_to_none_or_a_positive_number(name: str) -> None:
    parameter = parameters_of(name).get("max_wait_seconds")
    assert parameter is None or parameter.default is None or parameter.default > 0


def test_stream_tasks_give_generators() -> None:
    assert Generator.__name__ in str(inspect.signature(function_of("stream_run")).return_annotation)
    twin = inspect.signature(function_of("astream_run")).return_annotation
    assert AsyncGenerator.__name__ in str(twin)


def test_servers_for_tests_are_there_before_prefect_reads_its_settings() -> None:
    program = "import sys, prefect_langgraph.testing; print('prefect' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
