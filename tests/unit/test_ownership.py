"""Keys, ordinals and tags: a second attempt meets the runs of the first, and nobody meets another's."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from prefect_langgraph import create_thread, run_on_thread, run_stateless, start_run
from prefect_langgraph.canonical import canonical, digest
from prefect_langgraph.errors import InvalidRequestError
from prefect_langgraph.models import RunItem, RunStatus
from prefect_langgraph.ownership.calls import check_same_call, record_of, record_of_many
from prefect_langgraph.ownership.keys import Key, Ordinals, decide, key_for
from prefect_langgraph.ownership.owner import Owner, prefect_api
from prefect_langgraph.ownership.tags import (
    API,
    ATTEMPT,
    CALL,
    DEPLOYMENT_ID,
    FLOW_RUN_ID,
    KEY,
    OWNS_THREAD,
    ROOT_FLOW_RUN_ID,
    TASK_RUN_ID,
    thread_id_of,
)
from prefect_langgraph.runs.request import RunRequest
from prefect_langgraph.transport.loop import io_loop
from support.odd_server import OddServer, credentials_of

FLOW_RUN = str(uuid.uuid4())
Scope = tuple[str, int]

# Ordinals


def owner(*scopes: Scope, attempt: int = 1) -> Owner:
    return Owner(flow_run_id=FLOW_RUN, attempt=attempt, root=(FLOW_RUN, attempt), scopes=scopes)


calls = st.lists(st.sampled_from("abc"), max_size=30)


@given(calls)
def test_identical_calls_of_an_attempt_get_distinct_ordinals(made: list[str]) -> None:
    ordinals = Ordinals()
    found = [ordinals.ordinal(owner((f"task {n}", 1)), call) for n, call in enumerate(made)]
    for name in set(made):
        of_one = [ordinal for call, ordinal in zip(made, found, strict=True) if call == name]
        assert of_one == list(range(len(of_one)))


@given(calls, st.randoms())
def test_second_attempt_has_the_ordinals_of_the_first_in_whatever_order(
    made: list[str], random: Any
) -> None:
    ordinals = Ordinals()
    attempts = []
    for attempt in (1, 2):
        random.shuffle(made)
        found = [
            (call, ordinals.ordinal(owner((f"task {n} of {attempt}", 1), attempt=attempt), call))
            for n, call in enumerate(made)
        ]
        attempts.append(sorted(found))
    assert attempts[0] == attempts[1]


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.integers(1, 3)), min_size=1, max_size=20))
def test_retried_task_gets_the_ordinal_it_had(order: list[tuple[str, int]]) -> None:
    # Three tasks make the same call and are retried, interleaved as the scheduler likes.
    ordinals, attempts, known = Ordinals(), dict.fromkeys("xyz", 0), dict[str, int]()
    for task, times in order:
        for _ in range(times):
            attempts[task] += 1
            found = ordinals.ordinal(owner((task, attempts[task])), "call")
            assert known.setdefault(task, found) == found
    assert len(set(known.values())) == len(known)


@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    retries=st.integers(1, 3),
    random=st.randoms(),
)
def test_retried_caller_meets_its_own_calls_in_their_order(
    counts: list[int], retries: int, random: Any
) -> None:
    # Several callers each make some identical calls through tasks of ours, whose ids are new each time.
    ordinals, fresh = Ordinals(), itertools.count()
    known: dict[int, list[int]] = {}
    for attempt in range(1, retries + 2):
        turns = [caller for caller, count in enumerate(counts) for _ in range(count)]
        random.shuffle(turns)
        found: dict[int, list[int]] = {}
        for caller in turns:
            scopes = ((f"ours {next(fresh)}", 1), (f"caller {caller}", attempt))
            found.setdefault(caller, []).append(ordinals.ordinal(owner(*scopes), "call"))
        for caller, own in found.items():
            assert known.setdefault(caller, own) == own
    everything = [ordinal for own in known.values() for ordinal in own]
    assert sorted(everything) == list(range(sum(counts)))


def test_retry_of_our_task_does_not_count_as_another_call_of_its_caller() -> None:
    ordinals = Ordinals()
    caller = ("caller", 1)
    assert ordinals.ordinal(owner(("ours", 1), caller), "call") == 0
    assert ordinals.ordinal(owner(("ours", 2), caller), "call") == 0
    assert ordinals.ordinal(owner(("ours too", 1), caller), "call") == 1


def test_retried_caller_may_make_fewer_or_more_calls_than_before() -> None:
    ordinals = Ordinals()
    assert [ordinals.ordinal(owner(("c", 1)), "call") for _ in range(2)] == [0, 1]
    assert [ordinals.ordinal(owner(("c", 2)), "call") for _ in range(3)] == [0, 1, 2]


def test_flow_runs_do_not_share_ordinals() -> None:
    ordinals = Ordinals()
    for root in ("one", "other"):
        assert ordinals.ordinal(Owner(flow_run_id=root, root=(root, 1)), "call") == 0


def test_ordinals_of_many_flow_runs_are_forgotten_from_the_oldest() -> None:
    ordinals = Ordinals()
    for number in range(5000):
        ordinals.ordinal(Owner(flow_run_id=str(number), root=(str(number), 1)), "call")
    assert len(ordinals._tables) == 1000


# Keys

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), json_values, max_size=6), st.randoms())
def test_canonical_json_does_not_depend_on_the_order_of_keys(
    value: dict[str, Any], random: Any
) -> None:
    names = list(value)
    random.shuffle(names)
    assert canonical({name: value[name] for name in names}) == canonical(value)


@given(json_values)
def test_canonical_json_is_json_of_the_same_value(value: Any) -> None:
    assert json.loads(canonical(value)) == json.loads(json.dumps(value))


@given(json_values, json_values)
def test_different_values_have_different_canonical_json(one: Any, other: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (canonical(one) == canonical(other)) is same


@pytest.mark.parametrize(
    ("value", "same"),
    [
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset("ba"), ["a", "b"]),
        (RunItem(input=1), RunItem(input=1).model_dump()),
        ({1: "a"}, {"1": "a"}),
        ((1, 2), [1, 2]),
    ],
)
def test_what_the_sdk_also_takes_has_canonical_json(value: Any, same: Any) -> None:
    assert canonical(value) == canonical(same)


@pytest.mark.parametrize("value", [object(), lambda: None, {"a": b"bytes"}, RunItem, 1j])
def test_what_is_not_json_is_an_error(value: Any) -> None:
    with pytest.raises(TypeError):
        canonical(value)


def test_digest_depends_on_the_operation_and_its_arguments() -> None:
    found = {digest(name, {"input": value}) for name in ("start_run", "trigger") for value in (1, 2)}
    assert len(found) == 4
    assert digest("start_run", {"a": 1, "b": 2}) == digest("start_run", {"b": 2, "a": 1})


def test_key_depends_on_flow_run_call_and_ordinal() -> None:
    parts = itertools.product(("run 1", "run 2"), ("call 1", "call 2"), (0, 1))
    keys = [Key.derived(*part) for part in parts]
    assert len({key.text for key in keys}) == 8
    assert Key.derived("run 1", "call 1", 0) == keys[0]


def test_chosen_key_is_the_same_everywhere_and_does_not_show_what_was_chosen() -> None:
    key = Key.chosen("order 42 of ada")
    assert key == Key.chosen("order 42 of ada") != Key.chosen("order 43 of ada")
    assert "order" not in key.text


@pytest.mark.parametrize("given", ["", 7, None, b"key"])
def test_chosen_key_that_is_no_text_is_refused(given: Any) -> None:
    with pytest.raises(InvalidRequestError, match="idempotency_key"):
        Key.chosen(given)


def test_try_after_a_failure_has_a_key_and_a_thread_of_its_own() -> None:
    key = Key.chosen("k")
    texts = [key.after(failures) for failures in range(4)]
    assert texts[0] == key.text
    assert len({thread_id_of(text) for text in texts}) == 4
    assert {uuid.UUID(thread_id_of(text)).version for text in texts} == {5}


def test_places_of_attempts_are_apart_and_found_by_the_key() -> None:
    keys = [Key.claimed("run", "call", 0, attempt) for attempt in range(1, 5)]
    assert len({key.text for key in keys}) == 1
    assert Key.claim_ids(keys[0].after(2), 4) == [key.claim_id for key in keys]
    assert len({key.claim_id for key in keys} | {thread_id_of(keys[0].text)}) == 5


def test_counted_and_claimed_ordinals_are_apart() -> None:
    counted = Key.derived("run", "call", 0)
    assert counted.text != Key.claimed("run", "call", 0, 1).text
    assert Key.claim_ids(counted.text, 3) == []


def test_call_claims_by_the_task_run_that_came_into_this_process() -> None:
    ordinals = Ordinals()
    submitted, within = owner(("ours", 1)), owner(("ours too", 1), ("users", 1))
    names = [ordinals.claimant(made_by, "call")[0] for made_by in (submitted, within, within)]
    assert names[:2] == ["ours:0", "users:0"]
    # Retries, of ours and then of the caller's with a new one of ours.
    assert ordinals.claimant(owner(("ours", 2)), "call")[0] == "ours:0"
    assert ordinals.claimant(owner(("another", 1), ("users", 2)), "call")[0] == "users:0"
    # Dask has given the tasks to another process.
    elsewhere = Ordinals()
    assert elsewhere.claimant(owner(("new", 1), ("users", 1)), "call")[0] == "users:0"
    assert elsewhere.claimant(submitted, "call")[0] == "ours:0"


def test_call_in_no_task_claims_by_a_name_of_its_own() -> None:
    subflow = Owner(
        flow_run_id="f", is_subflow=True, root=(FLOW_RUN, 1), scopes=(("f", 1),), remote=True
    )
    ordinals = Ordinals()
    assert ordinals.claimant(subflow, "call")[0] != ordinals.claimant(subflow, "call")[0]


def test_headers_are_not_part_of_a_request_s_key() -> None:
    plain = RunRequest("agent", payload={"input": 1})
    renewed = RunRequest("agent", payload={"input": 1}, headers={"x-token": "new"})
    assert plain.arguments == renewed.arguments


def test_request_shows_neither_input_nor_headers() -> None:
    shown = repr(RunRequest("agent", {"input": "s3cr3t"}, {"x": "s3cr3t"}, {"m": "s3cr3t"}))
    assert "s3cr3t" not in shown


def key_of(made_by: Owner, **options: Any) -> Key | None:
    async def ask() -> Key | None:
        arguments: dict[str, Any] = {"idempotency_key": None, "once": True, **options}
        deployment: Any = None
        return await key_for(deployment, made_by, "start_run", {"input": 1}, **arguments)

    return io_loop().run(ask)


def test_call_outside_a_flow_run_has_a_key_only_when_one_is_given() -> None:
    assert key_of(Owner()) is None
    chosen = key_of(Owner(), idempotency_key="k")
    assert chosen is not None
    assert chosen.text == Key.chosen("k").text


def test_call_that_is_to_start_a_run_each_time_has_no_key() -> None:
    assert key_of(owner(), once=False) is None


def test_key_and_no_key_exclude_each_other() -> None:
    with pytest.raises(InvalidRequestError, match="exclude each other"):
        key_of(owner(), idempotency_key="k", once=False)


# Decisions

DECISIONS = {
    None: "start",
    RunStatus.PENDING: "adopt",
    RunStatus.RUNNING: "adopt",
    RunStatus.SUCCESS: "adopt",
    RunStatus.INTERRUPTED: "adopt",
    RunStatus.ERROR: "restart",
    RunStatus.TIMEOUT: "restart",
    RunStatus.CANCELLED: "restart",
    RunStatus.LOST: "restart",
}


def test_every_status_is_decided_about() -> None:
    assert set(DECISIONS) == {None, *RunStatus}


@pytest.mark.parametrize("status", DECISIONS)
def test_run_that_failed_is_never_adopted_and_one_that_did_not_always(status: RunStatus | None) -> None:
    assert decide(status) == DECISIONS[status]


# Tags


def test_outside_a_flow_run_only_the_key_is_set() -> None:
    assert Owner().tags() == {}
    assert Owner().tags(key="k") == {KEY: "k"}
    assert Owner().tags(key="k", owns_thread=True) == {KEY: "k", OWNS_THREAD: True}


def test_inside_a_flow_run_everything_leads_back_to_it() -> None:
    made_by = Owner(
        flow_run_id="f", task_run_id="t", deployment_id="d", api="a", root=("f", 1), scopes=(("t", 1),)
    )
    assert made_by.tags(key="k", owns_thread=True) == {
        KEY: "k",
        OWNS_THREAD: True,
        FLOW_RUN_ID: "f",
        TASK_RUN_ID: "t",
        DEPLOYMENT_ID: "d",
        API: "a",
        ATTEMPT: "f:1.0",
    }


def test_failed_run_is_a_trys_outcome_only_when_the_flow_run_was_suspended_since() -> None:
    first = Owner(flow_run_id="f", root=("f", 2), scopes=(("t", 1),))
    tags = first.tags(key="k")
    assert not first.made_before_suspension(tags)
    resumed = replace(first, suspensions=1, scopes=(("another", 1),))
    assert resumed.made_before_suspension(tags)
    assert not replace(resumed, root=("f", 3)).made_before_suspension(tags)
    assert not replace(resumed, flow_run_id="g", root=("g", 2)).made_before_suspension(tags)


def test_retry_after_a_suspension_starts_afresh_as_it_did_before() -> None:
    second_try = Owner(flow_run_id="s", root=("f", 1), scopes=(("t", 2), ("s", 1)), suspensions=1)
    first_try = replace(second_try, scopes=(("t", 1), ("s", 1)))
    assert not second_try.made_before_suspension(first_try.tags(key="k"))
    assert second_try.made_before_suspension(second_try.tags(key="k"))


def test_places_of_executions_of_one_attempt_are_apart() -> None:
    places = {Key.claimed("f", "call", 0, 1, number).claim_id for number in range(3)}
    assert len(places) == 3


def test_subflow_names_its_root_and_a_root_does_not() -> None:
    assert Owner(flow_run_id="f", root=("r", 1)).tags()[ROOT_FLOW_RUN_ID] == "r"
    assert ROOT_FLOW_RUN_ID not in Owner(flow_run_id="f", root=("f", 1)).tags()


# The Prefect API


def api_of(url: str) -> str:
    with temporary_settings({PREFECT_API_URL: url}):
        return prefect_api()


def test_prefect_api_is_short_and_says_nothing_of_the_address() -> None:
    found = api_of("https://user:s3cr3t@prefect.example.com/api")
    assert len(found) == 12
    assert int(found, 16) >= 0


@pytest.mark.parametrize(
    "url",
    [
        "https://prefect.example.com/api",
        "https://prefect.example.com/api/",
        "https://Prefect.Example.com/api",
        "https://user:password@prefect.example.com/api",
    ],
)
def test_prefect_api_is_the_same_however_its_address_is_written(url: str) -> None:
    assert api_of(url) == api_of("https://prefect.example.com/api")


def test_temporary_server_of_prefect_is_told_by_its_database() -> None:
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        found = prefect_api()
    assert len(found) == 12
    assert found != hashlib.sha256(b"").hexdigest()[:12]


def test_workspaces_of_one_prefect_are_told_apart() -> None:
    cloud = "https://api.prefect.cloud/api/accounts/a/workspaces/"
    assert (
        len({api_of(cloud + "one"), api_of(cloud + "other"), api_of("http://127.0.0.1:4200/api")}) == 3
    )


# Every argument of a run is part of its key, or is not for a reason

OTHER = str(uuid.uuid4())
VARIANTS: dict[str, Any] = {
    "assistant_id": "other",
    "input": {"other": 1},
    "thread_id": OTHER,
    "command": {"resume": "other"},
    "multitask_strategy": "enqueue",
    "config": {"tags": ["other"]},
    "context": {"other": 1},
    "metadata": {"other": 1},
    "checkpoint": {"checkpoint_id": OTHER},
    "checkpoint_id": OTHER,
    "interrupt_before": ["other"],
    "interrupt_after": "*",
    "webhook": "https://example.com/other",
    "if_not_exists": "create",
    "after_seconds": 1,
    "langsmith_tracing": {"project_name": "other"},
    "durability": "exit",
    "strict_resume": True,
    "stream_mode": ["values"],
    "stream_subgraphs": True,
    "stream_resumable": True,
    "supersteps": [{"updates": []}],
    "graph_id": "other",
    "ttl": 7,
}
NOT_IN_THE_KEY: dict[str, tuple[Any, str]] = {
    "headers": ({"x-token": "renewed"}, "tokens are renewed between attempts"),
    "max_wait_seconds": (9.0, "how long the caller waits is not what it asks for"),
    "on_timeout": ("leave", "what becomes of a run is not what is run"),
    "on_interrupt": ("return", "nor is what is made of a question"),
    "detached": (True, "a flag of the clean-up"),
    "if_exists": ("do_nothing", "matters only for an id that the caller gives"),
}
REPLACES_THE_KEY = {
    "credentials": "where, and the key is looked for there",
    "idempotency_key": "it is the key",
    "once": "whether there is a key",
}
THREAD = str(uuid.uuid4())
attempts = itertools.count(1)


@contextmanager
def inside_a_flow_run() -> Iterator[None]:
    """A new attempt of always the same flow run."""
    flow_run = FlowRun(id=uuid.UUID(FLOW_RUN), flow_id=uuid.uuid4(), run_count=next(attempts), name="f")
    context = FlowRunContext.model_construct(flow_run=flow_run, flow=None, detached=False)
    with temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: False}), context:
        yield


def started(task: Any, **arguments: Any) -> str:
    """The key of what a first call in an attempt made on the server."""
    server = OddServer()
    for thread_id in (THREAD, OTHER):
        server.threads[thread_id] = {"thread_id": thread_id, "metadata": {}, "status": "idle"}
        server.runs[thread_id] = []
    with inside_a_flow_run():
        made = task.fn(**arguments, credentials=credentials_of(server))
    if task is create_thread:
        return str(server.threads[made]["metadata"][KEY])
    [run] = server.created
    return str(run["metadata"][KEY])


TASKS: dict[str, tuple[Any, dict[str, Any]]] = {
    "run_stateless": (run_stateless, {"assistant_id": "agent", "input": {"a": 1}}),
    "run_on_thread": (
        run_on_thread,
        {"thread_id": THREAD, "assistant_id": "agent", "input": {"a": 1}},
    ),
    "start_run": (start_run, {"assistant_id": "agent", "input": {"a": 1}}),
    "create_thread": (create_thread, {}),
}
ARGUMENTS = [
    (name, given)
    for name, (task, _) in TASKS.items()
    for given in inspect.signature(task.fn).parameters
]
CHANGES = [
    # An id that the caller gives to a new thread is the thread's, key or not.
    pair
    for pair in ARGUMENTS
    if pair[1] in VARIANTS and pair != ("create_thread", "thread_id")
]
CHANGES_NOTHING = [pair for pair in ARGUMENTS if pair[1] in NOT_IN_THE_KEY]


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_every_argument_is_accounted_for(name: str, argument: str) -> None:
    places = [argument in VARIANTS, argument in NOT_IN_THE_KEY, argument in REPLACES_THE_KEY]
    assert places.count(True) == 1


@pytest.mark.parametrize(("name", "argument"), CHANGES)
def test_argument_that_changes_the_run_changes_its_key(name: str, argument: str) -> None:
    task, base = TASKS[name]
    same = started(task, **base)
    assert started(task, **base) == same
    assert started(task, **{**base, argument: VARIANTS[argument]}) != same


@pytest.mark.parametrize(
    ("name", "argument"), [pair for pair in ARGUMENTS if pair[1] in NOT_IN_THE_KEY]
)
def test_argument_that_does_not_change_the_run_leaves_its_key(name: str, argument: str) -> None:
    task, base = TASKS[name]
    value, _reason = NOT_IN_THE_KEY[argument]
    assert started(task, **base) == started(task, **{**base, argument: value})


def test_same_arguments_of_different_tasks_are_different_calls() -> None:
    base = {"assistant_id": "agent", "input": {"a": 1}}
    assert started(run_stateless, **base) != started(start_run, **base)


# What a chosen key was given for -------------------------------------------------------------------


def test_another_call_under_a_chosen_key_is_refused_by_the_names_that_differ() -> None:
    given = {"assistant_id": "a", "input": {"q": "secret words"}, "thread_id": None}
    mine = record_of("start_run", given)
    assert "secret" not in mine
    check_same_call(mine, {CALL: mine})
    check_same_call(mine, {})
    check_same_call(None, {CALL: mine})
    for other, said in [
        (record_of("start_run", {**given, "thread_id": "t"}), "in thread_id"),
        (record_of("start_run", {**given, "assistant_id": "b", "input": 1}), "in assistant_id, input"),
        (record_of("run_stateless", given), "was run_stateless, and this is start_run"),
        (record_of_many("start_run", [given, given]), "in number of inputs"),
    ]:
        with pytest.raises(InvalidRequestError, match=said):
            check_same_call(mine, {CALL: other})
