"""Warnings about doubtful header patterns. Pure; `HeaderPolicy.lint` is the public function."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Literal, TypeAlias

from prefect_langgraph.headers.patterns import NEVER_PASS, covers, is_name, obstacle
from prefect_langgraph.models import Model

LintCode: TypeAlias = Literal[
    "passes_everything",
    "passes_nothing",
    "capitals",
    "not_a_name",
    "regular_expression",
    "never_passes",
    "duplicate",
    "shadowed",
    "excluded",
    "sensitive",
    "internal",
    "spoofable",
]

_SENSITIVE = (
    "cf-access-jwt-assertion",
    "cookie",
    "proxy-authorization",
    "set-cookie",
    "x-access-token",
    "x-amz-security-token",
    "x-amzn-oidc-accesstoken",
    "x-amzn-oidc-data",
    "x-auth-request-access-token",
    "x-auth-token",
    "x-csrf-token",
    "x-forwarded-access-token",
    "x-goog-iap-jwt-assertion",
    "x-ms-token-aad-access-token",
    "x-vault-token",
)

_SENSITIVE_WORDS = re.compile(r"api-?key|authorization|cookie|credential|jwt|passw|secret|token")

# Configurables that the server or LangGraph uses. A header of the same name replaces them: with
# `checkpoint_id` a request goes on from another checkpoint of the thread, and an invented
# `__pregel_checkpointer` makes the run fail.
_INTERNAL = (
    "__pregel_checkpointer",
    "checkpoint_id",
    "checkpoint_ns",
    "cron_id",
    "langgraph_request_id",
    "user_id",
)


class LintWarning(Model):
    """A warning about a doubtful part of a policy.

    Attributes:
        code: The kind of warning; stable, for programs.
        pattern: The doubtful pattern or name, or None for a warning about the whole policy.
        message: What happens, and what to write instead.
    """

    code: LintCode
    pattern: str | None = None
    message: str

    def __str__(self) -> str:
        return self.message


def lint(
    includes: tuple[str, ...], excludes: tuple[str, ...], configurable: Iterable[str]
) -> list[LintWarning]:
    """List warnings about the patterns."""
    found: list[LintWarning] = []
    if not includes:
        found.append(
            LintWarning(
                code="passes_nothing",
                message="includes is empty: no header but langsmith-trace reaches the graph, "
                "whatever excludes says. List what the graph reads.",
            )
        )
    for side, patterns in (("includes", includes), ("excludes", excludes)):
        for index, pattern in enumerate(patterns):
            found += _of_spelling(side, pattern)
            found += _of_neighbours(side, patterns, index)
    for pattern in includes:
        found += _of_include(pattern, excludes)
    found += _of_reach(includes, excludes, configurable)
    return found


def _of_spelling(side: str, pattern: str) -> Iterator[LintWarning]:
    named = f"{pattern!r} of {side}"
    if pattern != pattern.lower():
        yield LintWarning(
            code="capitals",
            pattern=pattern,
            message=f"{named} never matches: names arrive in lower case. Write {pattern.lower()!r}.",
        )
    if not is_name(pattern):
        yield LintWarning(
            code="not_a_name",
            pattern=pattern,
            message=f"{named} never matches: it is not a valid header name. Only * is special.",
        )
    elif pattern.startswith("^") or pattern.endswith("$") or ".*" in pattern:
        yield LintWarning(
            code="regular_expression",
            pattern=pattern,
            message=f"{named} looks like a regular expression, and is read as literal text except "
            "for *. Write x-user-* for every name that begins with x-user-.",
        )


def _of_neighbours(side: str, patterns: tuple[str, ...], index: int) -> Iterator[LintWarning]:
    pattern = patterns[index]
    if pattern in patterns[:index]:
        yield LintWarning(
            code="duplicate",
            pattern=pattern,
            message=f"{pattern!r} is in {side} more than once. Remove one.",
        )
        return
    for other, wide in enumerate(patterns):
        if wide == pattern or not covers(wide, pattern):
            continue
        # Of two that match the same names, like * and **, the later one is superfluous.
        if other < index or not covers(pattern, wide):
            yield LintWarning(
                code="shadowed",
                pattern=pattern,
                message=f"{pattern!r} of {side} has no effect: {wide!r} matches all it could. "
                "Remove one of the two.",
            )
            return


def _of_include(pattern: str, excludes: tuple[str, ...]) -> Iterator[LintWarning]:
    if covers(pattern, "*"):
        yield LintWarning(
            code="passes_everything",
            pattern=pattern,
            message=f"{pattern!r} of includes passes every header, also host, cookie and what "
            "proxies add. List the headers that the graph reads.",
        )
    if pattern in NEVER_PASS:
        yield LintWarning(
            code="never_passes",
            pattern=pattern,
            message=f"{pattern!r} of includes has no effect: no LangGraph server passes that "
            "header on. Use a header of your own, or the server's auth handler.",
        )
    if wider := next((wide for wide in excludes if covers(wide, pattern)), None):
        yield LintWarning(
            code="excluded",
            pattern=pattern,
            message=f"{pattern!r} of includes has no effect: {wider!r} of excludes drops "
            "everything it could match. Remove one of the two.",
        )


def _of_reach(
    includes: tuple[str, ...], excludes: tuple[str, ...], configurable: Iterable[str]
) -> Iterator[LintWarning]:
    def passes(name: str) -> bool:
        # A pattern is read as a name here: * is a character that a header's name may contain.
        return name == name.lower() and is_name(name) and not obstacle(includes, excludes, name)

    written = (pattern for pattern in includes if _SENSITIVE_WORDS.search(pattern))
    sensitive = sorted({name for name in (*_SENSITIVE, *written) if passes(name)})
    if sensitive:
        yield LintWarning(
            code="sensitive",
            message=f"Sensitive headers reach the graph: {', '.join(sensitive)}. The server stores "
            "their values in the run and in checkpoint metadata, and sends them to webhooks. Add "
            "them to excludes.",
        )
    internal = [name for name in _INTERNAL if passes(name)]
    if internal:
        yield LintWarning(
            code="internal",
            message=f"Headers can replace what the server works with: {', '.join(internal)}. "
            'Narrow includes, or add these and "__*" to excludes.',
        )
    for name in dict.fromkeys(configurable):
        if passes(name):
            yield LintWarning(
                code="spoofable",
                pattern=name,
                message=f"Header and configurable are both called {name!r}: the header wins, and "
                "without the header anyone who may start a run can set it in the body. Rename one, "
                "or let the server's auth handler decide.",
            )
