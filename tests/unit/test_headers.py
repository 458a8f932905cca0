"""Header policies: which headers reach a graph, which must not be sent, and what is never shown."""

from __future__ import annotations

import json
import pickle
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import h11
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from prefect_langgraph.errors import HeaderPolicyError
from prefect_langgraph.headers import (
    DEFAULT_DENY,
    HeaderPolicy,
    HeaderPolicyWarning,
    HeaderValue,
    LintWarning,
    merge_headers,
    validate_headers,
)
from prefect_langgraph.headers.patterns import covers, matches

MARK = "s3cr3t-mark"

globs = st.text("ab*", max_size=6)
words = st.text("ab", max_size=8)
names = st.from_regex(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}", fullmatch=True)
values = st.from_regex(r"([!-~]([ -~\t]{0,8}[!-~])?)?", fullmatch=True)


def codes(warnings: list[LintWarning]) -> list[str]:
    return [warning.code for warning in warnings]


def write(path: Path, settings: Any) -> Path:
    path.write_text(json.dumps(settings), encoding="utf-8")
    return path


# Patterns


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("x-user", "x-user", True),
        ("x-user", "x-user-id", False),
        ("x-*", "x-", True),
        ("*-id", "x-user-id", True),
        ("x-*-id", "x-id", False),
        ("x-*-*-id", "x-a-b-id", True),
        ("*a*a*", "a", False),
        ("aa*aa", "aaa", False),
        ("x.user", "x-user", False),
        ("x-[ab]", "x-a", False),
        ("", "x", False),
        ("*", "x", True),
    ],
)
def test_pattern_is_literal_but_for_the_star(pattern: str, name: str, expected: bool) -> None:
    assert matches(pattern, name) is expected


def test_pattern_of_many_stars_is_decided_at_once() -> None:
    assert not matches("*a" * 2_000 + "b", "a" * 10_000)


@given(globs, globs, words)
def test_wide_pattern_matches_whatever_the_narrow_one_matches(a: str, b: str, word: str) -> None:
    if covers(a, b) and matches(b, word):
        assert matches(a, word)


@given(globs, globs)
def test_pattern_that_does_not_cover_misses_a_name_of_the_other(wide: str, narrow: str) -> None:
    if not covers(wide, narrow):
        missed = narrow.replace("*", "z")
        assert matches(narrow, missed)
        assert not matches(wide, missed)


# Visible


def test_policy_without_includes_lets_nothing_pass() -> None:
    assert HeaderPolicy(excludes=("x-a",)).visible({"X-B": "1", "User-Agent": "me"}) == {}


def test_exclude_wins_over_include() -> None:
    policy = HeaderPolicy(includes=("x-*",), excludes=("x-internal-*",))
    assert policy.visible({"X-User": "a", "X-Internal-Hop": "b"}) == {"x-user": "a"}


@pytest.mark.parametrize("name", ["Authorization", "x-api-key", "X-Service-Key", "X-Tenant-Id"])
def test_credentials_of_the_request_never_pass_even_if_included(name: str) -> None:
    assert HeaderPolicy(includes=("*", name.lower())).visible({name: "v"}) == {}


def test_trace_header_passes_any_policy() -> None:
    policy = HeaderPolicy(includes=("x-a",), excludes=("*",))
    assert policy.visible({"Langsmith-Trace": "t"}) == {"langsmith-trace": "t"}


def test_pattern_with_capitals_lets_nothing_pass() -> None:
    assert HeaderPolicy(includes=("X-User",)).visible({"X-User": "a"}) == {}


def test_secret_value_is_visible_as_the_graph_sees_it() -> None:
    assert HeaderPolicy(includes=("x-a",)).visible({"x-a": SecretStr(MARK)}) == {"x-a": MARK}


def test_name_that_is_not_ascii_does_not_pass_by_being_lowered() -> None:
    kelvin = "\u212a"
    assert kelvin.lower() == "k"
    assert not HeaderPolicy(includes=("k",)).passes(kelvin)


@given(st.dictionaries(names, values, max_size=5), st.lists(globs, max_size=3))
def test_whatever_is_sent_the_graph_sees_a_lower_case_part_of_it(
    headers: dict[str, str], includes: list[str]
) -> None:
    policy = HeaderPolicy(includes=tuple(includes))
    try:
        seen = policy.visible(headers)
    except HeaderPolicyError:
        assert len({name.lower() for name in headers}) < len(headers)
        return
    sent = {name.lower(): value for name, value in headers.items()}
    assert seen.items() <= sent.items()


# Configuration


@pytest.mark.parametrize(
    ("section", "includes", "excludes"),
    [
        ({"includes": ["x-*"], "excludes": ["x-a"]}, ("x-*",), ("x-a",)),
        ({"include": ["x-*"], "exclude": ["x-a"]}, ("x-*",), ("x-a",)),
        ({"includes": ["x-*"], "include": ["y-*"]}, ("x-*",), ()),
        ({"includes": [], "include": ["y-*"]}, ("y-*",), ()),
        ({"includes": None, "inclodes": ["z"]}, (), ()),
        ({}, (), ()),
        (None, (), ()),
    ],
)
def test_both_spellings_are_read_from_langgraph_json(
    tmp_path: Path, section: Any, includes: tuple[str, ...], excludes: tuple[str, ...]
) -> None:
    file = write(tmp_path / "langgraph.json", {"http": {"configurable_headers": section}})
    policy = HeaderPolicy.from_langgraph_json(file)
    assert (policy.includes, policy.excludes) == (includes, excludes)


@pytest.mark.parametrize("settings", [{}, {"http": None}, {"http": {}}])
def test_langgraph_json_without_the_section_lets_nothing_pass(tmp_path: Path, settings: Any) -> None:
    policy = HeaderPolicy.from_langgraph_json(str(write(tmp_path / "l.json", settings)))
    assert policy == HeaderPolicy()


@pytest.mark.parametrize(
    "settings",
    [
        [],
        {"http": []},
        {"http": {"configurable_headers": "x-*"}},
        {"http": {"configurable_headers": {"includes": "x-*"}}},
        {"http": {"configurable_headers": {"excludes": [1]}}},
    ],
)
def test_langgraph_json_that_no_server_takes_is_refused(tmp_path: Path, settings: Any) -> None:
    with pytest.raises(HeaderPolicyError, match=r"l\.json: http"):
        HeaderPolicy.from_langgraph_json(write(tmp_path / "l.json", settings))


@pytest.mark.parametrize("text", [None, b'{"env": {"KEY": "s3cr3t-mark"}', b"\xff\xfes3cr3t-mark"])
def test_unreadable_langgraph_json_is_named_without_its_content(
    tmp_path: Path, text: bytes | None
) -> None:
    file = tmp_path / "l.json"
    if text is not None:
        file.write_bytes(text)
    with pytest.raises(HeaderPolicyError, match=r"l\.json cannot be read") as caught:
        HeaderPolicy.from_langgraph_json(file)
    assert MARK not in str(caught.value)
    assert caught.value.__context__ is None


def test_short_spelling_is_accepted_by_the_model() -> None:
    policy = HeaderPolicy.model_validate({"include": ["x-*"], "exclude": ["x-a"]})
    assert policy == HeaderPolicy(includes=("x-*",), excludes=("x-a",))


def test_policy_survives_json() -> None:
    policy = HeaderPolicy(includes=("x-*",), server_only=("Authorization",), on_violation="warn")
    assert HeaderPolicy.model_validate_json(policy.model_dump_json()) == policy


def test_string_in_place_of_patterns_is_refused_without_being_shown() -> None:
    with pytest.raises(ValidationError) as caught:
        HeaderPolicy.model_validate({"includes": MARK})
    assert MARK not in str(caught.value)


# Check


def test_headers_that_arrive_pass_the_check() -> None:
    assert HeaderPolicy(includes=("x-*",)).check({"X-User": "a"}) == ()
    assert HeaderPolicy().check(None) == ()


@pytest.mark.parametrize("name", DEFAULT_DENY)
def test_denied_header_is_refused_before_the_request(name: str) -> None:
    with pytest.raises(HeaderPolicyError, match=rf"Nothing was sent. `{name.title()}` must not"):
        HeaderPolicy(includes=("*",)).check({name.title(): MARK})


def test_own_deny_pattern_is_read_in_any_casing() -> None:
    policy = HeaderPolicy(includes=("x-*",), deny=("X-Customer-*",))
    (violation,) = policy.violations({"x-cUSTOMER-id": "1"})
    assert (violation.name, violation.problem) == ("x-cUSTOMER-id", "denied")


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (HeaderPolicy(), "includes is empty"),
        (HeaderPolicy(includes=("X-User",)), "write 'x-user'"),
        (HeaderPolicy(includes=("x-*",), excludes=("*-user",)), "'*-user' of excludes drops it"),
        (HeaderPolicy(includes=("x-team",)), "matches none of includes ['x-team']"),
    ],
)
def test_header_that_would_not_arrive_is_refused_with_the_reason(
    policy: HeaderPolicy, reason: str
) -> None:
    with pytest.raises(HeaderPolicyError) as caught:
        policy.check({"X-User": "a"})
    assert "`X-User` would not reach the graph" in str(caught.value)
    assert reason in str(caught.value)


def test_header_no_server_passes_on_is_refused_even_if_included() -> None:
    with pytest.raises(HeaderPolicyError, match="no LangGraph server passes it on"):
        HeaderPolicy(includes=("*",)).check({"X-Tenant-Id": "t"})


def test_header_meant_for_the_server_passes_the_check_despite_the_deny_list() -> None:
    policy = HeaderPolicy(includes=("x-user",), server_only=("Authorization", "x-tenant-id"))
    assert policy.check({"authorization": "Bearer a", "X-Tenant-Id": "t", "X-User": "u"}) == ()


def test_baggage_beside_a_trace_passes_the_check() -> None:
    policy = HeaderPolicy(includes=("x-*",))
    assert policy.check({"langsmith-trace": "t", "baggage": "langsmith-project=a"}) == ()
    assert [v.problem for v in policy.violations({"baggage": "langsmith-project=a"})] == ["hidden"]


def test_violation_is_warned_of_when_the_policy_says_so() -> None:
    policy = HeaderPolicy(includes=("x-*",), on_violation="warn")
    with pytest.warns(HeaderPolicyWarning, match="`Cookie` must not be sent") as caught:
        (violation,) = policy.check({"Cookie": MARK})
    assert violation.problem == "denied"
    assert MARK not in str(caught[0].message)
    assert caught[0].filename == __file__


def test_choice_of_the_call_wins_over_the_choice_of_the_policy() -> None:
    policy = HeaderPolicy(on_violation="warn")
    with pytest.raises(HeaderPolicyError):
        policy.check({"x-a": "1"}, on_violation="raise")


def test_unknown_choice_is_refused_even_without_a_violation() -> None:
    with pytest.raises(ValueError, match="on_violation"):
        HeaderPolicy().check({}, on_violation="ignore")  # type: ignore[arg-type]


@given(st.dictionaries(names, values, max_size=4), st.lists(globs, max_size=2))
def test_header_with_default_deny_either_arrives_or_is_a_violation(
    headers: dict[str, str], includes: list[str]
) -> None:
    policy = HeaderPolicy(includes=tuple(includes), deny=())
    try:
        seen = policy.visible(headers)
    except HeaderPolicyError:
        return
    wrong = {violation.name.lower() for violation in policy.violations(headers)}
    assert wrong.isdisjoint(seen)
    assert wrong | set(seen) == {name.lower() for name in headers}


# Lint


@pytest.mark.parametrize(
    ("includes", "excludes", "expected"),
    [
        (["x-user-*"], ["x-user-internal"], []),
        (["x-*"], ["*token*", "*data", "*jwt*"], []),
        ([], [], ["passes_nothing"]),
        ([], ["x-a"], ["passes_nothing"]),
        (["X-User"], [], ["capitals"]),
        (["x-user"], ["X-Secret-*"], ["capitals"]),
        (["x-user: a"], [], ["not_a_name"]),
        (["x-[ab]"], [], ["not_a_name"]),
        (["^x-user"], [], ["regular_expression"]),
        (["x-a.*"], [], ["regular_expression"]),
        (["authorization"], [], ["never_passes"]),
        (["x-user", "x-user"], [], ["duplicate"]),
        (["x-user-*", "x-user-id"], [], ["shadowed"]),
        (["x-user-*", "x-user-**"], [], ["shadowed"]),
        (["x-user"], ["x-a*", "x-ab"], ["shadowed"]),
        (["x-user"], ["x-user"], ["excluded"]),
        (["x-user-id", "x-team"], ["x-user-*"], ["excluded"]),
        (["x-team-token"], [], ["sensitive"]),
        (["cookie"], [], ["sensitive"]),
        (["user_id"], [], ["internal"]),
        (["*"], [], ["passes_everything", "sensitive", "internal"]),
        (["*"], ["*"], ["passes_everything", "excluded"]),
    ],
)
def test_doubtful_policy_is_warned_of(
    includes: list[str], excludes: list[str], expected: list[str]
) -> None:
    assert codes(HeaderPolicy(includes=tuple(includes), excludes=tuple(excludes)).lint()) == expected


def test_configurable_that_a_header_could_replace_is_warned_of() -> None:
    policy = HeaderPolicy(includes=("x-*", "tenant", "model"), excludes=("*token", "*data", "*jwt*"))
    body = {"tenant": "a", "x-plan": "b", "Model": "c", "thread_ts": "d"}
    warnings = policy.lint(configurable=body)
    assert codes(warnings) == ["spoofable", "spoofable"]
    assert [warning.pattern for warning in warnings] == ["tenant", "x-plan"]
    assert "'tenant'" in str(warnings[0])


@given(st.lists(globs, min_size=1, max_size=4).map(tuple), words)
def test_removing_a_pattern_said_to_have_no_effect_changes_nothing(
    patterns: tuple[str, ...], name: str
) -> None:
    for side, others in (("includes", {}), ("excludes", {"includes": ("*",)})):
        policy = HeaderPolicy.model_validate({**others, side: patterns})
        for warning in policy.lint():
            if warning.code in ("duplicate", "shadowed"):
                kept = list(patterns)
                kept.remove(warning.pattern or "")
                without = HeaderPolicy.model_validate({**others, side: kept or ("-",)})
                assert without.passes(name) == policy.passes(name)


# Validation without a policy


@given(st.dictionaries(names.map("X-{}".format), values, max_size=5))
def test_valid_headers_keep_their_casing(headers: dict[str, str]) -> None:
    assume(len({name.lower() for name in headers}) == len(headers))
    assert validate_headers(headers) == headers


def test_no_headers_are_valid_headers() -> None:
    assert validate_headers(None) == {}


def test_headers_that_are_not_a_mapping_are_refused() -> None:
    with pytest.raises(HeaderPolicyError, match="headers is a list"):
        validate_headers([("x-a", MARK)])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["x-api-key", "X-Api-Key", "X-API-KEY"])
def test_key_among_the_headers_is_sent_to_the_argument_for_it(name: str) -> None:
    with pytest.raises(HeaderPolicyError, match="use api_key="):
        validate_headers({name: MARK})


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "Content-Type", "TE"])
def test_header_that_describes_the_body_is_refused(name: str) -> None:
    with pytest.raises(HeaderPolicyError, match=f"`{name}` describes the request"):
        validate_headers({name: "1"})


def test_names_that_differ_in_case_are_refused_as_one_header() -> None:
    with pytest.raises(HeaderPolicyError, match="`X-User` and `x-user` are one header"):
        validate_headers({"X-User": "a", "x-user": "b"})


@pytest.mark.parametrize(
    "headers",
    [
        {f"Bearer {MARK}": "Authorization"},
        {f"x-a: {MARK}": ""},
        {f"{MARK}\u00e9": "a"},
        {"": MARK},
        {b"x-a": MARK},
        {"x-a": f"{MARK}\r\nx-admin: yes"},
        {"x-a": f"{MARK}\n"},
        {"x-a": f"{MARK}\x00"},
        {"x-a": f"{MARK}\x7f"},
        {"x-a": f" {MARK}"},
        {"x-a": f"{MARK}\t"},
        {"x-a": f"{MARK}\u00e9"},
        {"x-a": SecretStr(f"{MARK}\n")},
        {"x-a": MARK.encode()},
        {"x-a": [MARK]},
        {"x-a": None},
        {"x-a": 1},
    ],
)
def test_header_that_http_does_not_allow_is_refused_without_being_shown(
    headers: Mapping[Any, Any],
) -> None:
    with pytest.raises(HeaderPolicyError) as caught:
        validate_headers(headers)
    error = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    shown = "".join(traceback.format_exception_only(caught.value)) + repr(error) + str(error)
    assert MARK not in shown


@given(st.text(max_size=8), st.text(max_size=8))
def test_arbitrary_text_is_what_the_client_library_sends_or_a_typed_error(
    name: str, value: str
) -> None:
    with suppress(HeaderPolicyError):
        ((sent_name, sent_value),) = validate_headers({name: value}).items()
        h11.Request(method="POST", target="/", headers=[("host", "a"), (sent_name, sent_value)])


# Merging


def test_header_of_the_call_replaces_that_of_the_block_in_any_casing() -> None:
    block: dict[str, HeaderValue] = {"X-User": SecretStr("block"), "X-Team": "a"}
    assert merge_headers(block, {"x-user": "call"}) == {"X-Team": "a", "x-user": "call"}
    assert merge_headers(block, None) == {"X-User": "block", "X-Team": "a"}
    assert merge_headers(None, {"x-a": "b"}) == {"x-a": "b"}


def test_merging_refuses_what_validation_refuses() -> None:
    with pytest.raises(HeaderPolicyError):
        merge_headers({"x-api-key": MARK}, {})


# Secrets


@pytest.mark.parametrize("on_violation", ["raise", "warn"])
def test_no_value_is_in_a_violation(on_violation: str) -> None:
    policy = HeaderPolicy.model_validate({"includes": ["x-*"], "on_violation": on_violation})
    headers: dict[str, HeaderValue] = {"Cookie": MARK, "Accept": SecretStr(MARK), "X-Tenant-Id": MARK}
    found = policy.violations(headers)
    assert len(found) == 3
    assert MARK not in repr(found) + repr(policy) + "".join(map(str, found))
    with pytest.raises((HeaderPolicyError, HeaderPolicyWarning)) as caught:
        policy.check(headers)
    assert MARK not in str(caught.value) + repr(caught.value)
