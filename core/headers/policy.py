"""Which request headers a graph sees, and which must not leave this process.

A LangGraph server passes some headers of a request to the graph, in `config["configurable"]`, as
`http.configurable_headers` in `langgraph.json` says. `HeaderPolicy` decides the same here, before a
request is sent. Per lower-cased name, the first rule that applies wins:

    1. `langsmith-trace`                                              passes
    2. `authorization`, `x-api-key`, `x-service-key`, `x-tenant-id`   do not pass
    3. matches a pattern of excludes                                  does not pass
    4. matches a pattern of includes                                  passes
    5. anything else                                                  does not pass

A pattern is literal except for `*`, is compared with the whole name and keeps its capitals, so a
pattern with a capital never matches. Messages of this module contain header names, never header values.
A name that HTTP does not allow is not shown either: it is often a value in the wrong place.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field, SecretStr, ValidationError, model_validator

from prefect_langgraph.errors import HeaderPolicyError
from prefect_langgraph.headers.lint import LintWarning, lint
from prefect_langgraph.headers.patterns import TRACE, first_match, is_name, lower, obstacle
from prefect_langgraph.models import Model

__all__ = [
    "DEFAULT_DENY",
    "HeaderPolicy",
    "HeaderPolicyWarning",
    "HeaderValue",
    "HeaderViolation",
    "LintWarning",
    "OnViolation",
    "merge_headers",
    "validate_headers",
]

HeaderValue: TypeAlias = str | SecretStr

OnViolation: TypeAlias = Literal["raise", "warn"]

DEFAULT_DENY = (
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "x-service-key",
)

# Stricter than the client library, which sends control characters, to which the server answers only
# 400, and whose exception shows a value that it rejects.
_VALUE = re.compile(r"(?:[!-~](?:[ -~\t]*[!-~])?)?")

# The client sets these for the body it sends. Another value would break the request.
_FRAMING = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class HeaderPolicyWarning(UserWarning):
    """A header breaks a policy whose `on_violation` is "warn"."""


class HeaderViolation(Model):
    """One header that breaks a policy.

    Attributes:
        name: The header, as the caller wrote it.
        problem: `denied` must not be sent; `hidden` would not reach the graph.
        message: The name, the problem and its reason, without the value.
    """

    name: str
    problem: Literal["denied", "hidden"]
    message: str

    def __str__(self) -> str:
        return self.message


class HeaderPolicy(Model):
    """Which headers a graph sees, by the server's own algorithm, and which may be sent.

    Attributes:
        includes: Patterns of headers that pass; `include` is accepted as well. As in the server,
            `include` counts only where `includes` is empty.
        excludes: Patterns of headers that do not pass, and win over includes; or `exclude`.
        deny: Patterns of headers that `check` rejects, in any casing.
        server_only: Names, not patterns, of headers meant for the server or a proxy before it, such
            as a gateway's `authorization`. `check` accepts them although no graph sees them, and
            although `deny` has them.
        on_violation: What `check` does with a violation unless its own argument says otherwise.

    Example:
        >>> policy = HeaderPolicy(includes=("x-*",), excludes=("x-internal-*",))
        >>> policy.visible({"X-User-Id": "42", "X-Internal-Hop": "a", "Accept": "*/*"})
        {'x-user-id': '42'}
    """

    model_config = ConfigDict(
        hide_input_in_errors=True,
        json_schema_extra={"description": "Which headers graphs see, and which must not be sent."},
    )

    includes: tuple[str, ...] = Field(
        default=(),
        title="Seen by graphs",
        description="Patterns, such as x-user-*. In langgraph.json they are the includes.",
        json_schema_extra={"position": 0},
    )
    excludes: tuple[str, ...] = Field(
        default=(),
        title="But not",
        description="Patterns of headers that graphs do not see although the ones above match.",
        json_schema_extra={"position": 1},
    )
    deny: Annotated[tuple[str, ...], AfterValidator(lower)] = Field(
        default=DEFAULT_DENY,
        title="Never sent",
        description="Patterns of headers that no request may carry.",
        json_schema_extra={"position": 2},
    )
    server_only: Annotated[tuple[str, ...], AfterValidator(lower)] = Field(
        default=(),
        title="Meant for the server alone",
        description="Names of headers for the server or a gateway: sent although no graph sees them.",
        json_schema_extra={"position": 3},
    )
    on_violation: OnViolation = Field(
        default="raise",
        title="On a violation",
        description="raise refuses the request; warn sends it with a warning.",
        json_schema_extra={"position": 4},
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_short_spelling(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        fields = dict(data)
        for name, short in (("includes", "include"), ("excludes", "exclude")):
            other = fields.pop(short, None)
            fields[name] = fields.get(name) or other or ()
        return fields

    @classmethod
    def from_langgraph_json(cls, path: str | Path) -> HeaderPolicy:
        """Read the policy of a server that is started with this file.

        A file without `http.configurable_headers` gives a policy that passes nothing, as its server
        does.

        Raises:
            HeaderPolicyError: The file cannot be read, or a server would refuse to start with it.

        Example:
            >>> import pathlib, tempfile
            >>> file = pathlib.Path(tempfile.mkdtemp(), "langgraph.json")
            >>> _ = file.write_text('{"http": {"configurable_headers": {"includes": ["x-*"]}}}')
            >>> HeaderPolicy.from_langgraph_json(file).includes
            ('x-*',)
        """
        problem = None
        try:
            section = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            problem = error.strerror
        except ValueError as error:
            problem = str(error)
        if problem is not None:
            # Raised here, without JSONDecodeError, which has the file's text and perhaps secrets in it.
            raise HeaderPolicyError(
                f"{path} cannot be read as JSON: {problem}. "
                "Give the path of the langgraph.json that the server was started with."
            )
        where = str(path)
        for key in ("http", "configurable_headers"):
            section = section.get(key) if isinstance(section, Mapping) else section
            where = f"{where}: {key}"
            if section is None:
                return cls()
            if not isinstance(section, Mapping):
                raise HeaderPolicyError(f"{where} is not an object, so no server starts with it.")
        spellings = ("includes", "include", "excludes", "exclude")
        try:
            return cls.model_validate({name: section.get(name) for name in spellings})
        except ValidationError:
            raise HeaderPolicyError(
                f"{where}: includes and excludes must be lists of strings, "
                'such as {"includes": ["x-user-*"]}.'
            ) from None

    def passes(self, name: str) -> bool:
        """True when the graph sees a header of this name, in any casing.

        Example:
            >>> HeaderPolicy(includes=("x-user-*",)).passes("X-User-Id")
            True
        """
        return is_name(name) and self._obstacle(name.lower()) is None

    def denies(self, name: str) -> bool:
        """True when a header of this name, in any casing, must not be sent.

        Example:
            >>> HeaderPolicy(deny=("baggage",)).denies("Baggage")
            True
        """
        return bool(first_match(self.deny, name.lower()))

    def visible(self, headers: Mapping[str, HeaderValue] | None) -> dict[str, str]:
        """Return the headers that the graph sees, under the names that it sees.

        Only what is in `headers` counts: the client adds its own (`user-agent`, `host`, ...), and a
        server that is sent both `langsmith-trace` and `baggage` also gives the graph the
        `langsmith-project`, `langsmith-tags` and `langsmith-metadata` it finds in the latter.

        Returns:
            Lower-cased names and plain values. Values are as secret as they were before.

        Raises:
            HeaderPolicyError: No HTTP request can contain these headers.

        Example:
            >>> HeaderPolicy(includes=("x-user",)).visible({"X-User": "ada", "X-Team": "b"})
            {'x-user': 'ada'}
        """
        plain = _plain_headers(headers)
        return {name.lower(): value for name, value in plain.items() if self.passes(name)}

    def violations(self, headers: Mapping[str, HeaderValue] | None) -> tuple[HeaderViolation, ...]:
        """Return every header that must not be sent or would not reach the graph.

        Example:
            >>> HeaderPolicy(includes=("x-*",)).violations({"Cookie": "a=b"})[0].problem
            'denied'
        """
        names = list(_plain_headers(headers))
        sent = {name.lower() for name in names}
        found = []
        for name in names:
            low = name.lower()
            if low in self.server_only:
                continue
            # The server reads baggage beside a trace, whatever the patterns say.
            if low == "baggage" and TRACE in sent and not self.denies(low):
                continue
            if denied := first_match(self.deny, low):
                reason = f"`{name}` must not be sent: it matches {denied!r} of the deny list"
                found.append(HeaderViolation(name=name, problem="denied", message=reason))
            elif obstacle := self._obstacle(low):
                reason = f"`{name}` would not reach the graph: {obstacle}"
                found.append(HeaderViolation(name=name, problem="hidden", message=reason))
        return tuple(found)

    def check(
        self,
        headers: Mapping[str, HeaderValue] | None,
        *,
        on_violation: OnViolation | None = None,
    ) -> tuple[HeaderViolation, ...]:
        """Reject headers that must not be sent or would not reach the graph.

        Sends nothing, so it is cheap enough for every call.

        Args:
            headers: The headers of a request, the block's included.
            on_violation: "raise" or "warn" (a `HeaderPolicyWarning`). None: as the policy says.

        Returns:
            The violations after a warning; otherwise an empty tuple.

        Raises:
            HeaderPolicyError: There are violations, or no HTTP request can contain these headers.

        Example:
            >>> policy = HeaderPolicy(includes=("x-*",), server_only=("authorization",))
            >>> policy.check({"X-User": "ada", "Authorization": "Bearer ..."})
            ()
        """
        chosen = self.on_violation if on_violation is None else on_violation
        if chosen not in ("raise", "warn"):
            raise ValueError('on_violation is "raise", "warn" or None.')
        found = self.violations(headers)
        if not found:
            return ()
        what = "; ".join(str(violation) for violation in found)
        advice = (
            "Leave the header out, change http.configurable_headers of the server and this policy, "
            "or name it in server_only if it is not meant for the graph."
        )
        if chosen == "raise":
            raise HeaderPolicyError(f"Nothing was sent. {what}. {advice}")
        warnings.warn(f"{what}. {advice}", HeaderPolicyWarning, stacklevel=2)
        return found

    def lint(self, *, configurable: Iterable[str] = ()) -> list[LintWarning]:
        """List warnings about doubtful includes and excludes.

        Args:
            configurable: Names that calls put under `config["configurable"]`, or that mapping
                itself. There is a warning for each name that a header could replace.

        Example:
            >>> for warning in HeaderPolicy(includes=("X-User",)).lint():
            ...     print(warning.code)
            capitals
        """
        return lint(self.includes, self.excludes, configurable)

    def _obstacle(self, low: str) -> str | None:
        return obstacle(self.includes, self.excludes, low)


def validate_headers(headers: Mapping[str, HeaderValue] | None) -> dict[str, str]:
    """Reject headers that no request should have, with any policy or none.

    These are names or values that HTTP does not allow (line breaks above all), `x-api-key`, headers
    that describe the body, and two names that differ only in case, of which one would be lost.

    Returns:
        The headers in the given casing, secrets unwrapped. Use them only for the request.

    Raises:
        HeaderPolicyError: Names the header, and shows no value.

    Example:
        >>> validate_headers({"X-User": "ada"})
        {'X-User': 'ada'}
    """
    plain = _plain_headers(headers)
    for name in plain:
        if name.lower() == "x-api-key":
            raise HeaderPolicyError(f"`{name}` is the deployment's key: use api_key= for it.")
        if name.lower() in _FRAMING:
            raise HeaderPolicyError(
                f"`{name}` describes the request itself, and the client sets it. Leave it out."
            )
    return plain


def merge_headers(
    base: Mapping[str, HeaderValue] | None, over: Mapping[str, HeaderValue] | None
) -> dict[str, str]:
    """Combine a block's headers with a call's, which win; the case of names does not matter.

    Raises:
        HeaderPolicyError: As `validate_headers`, for either of them.

    Example:
        >>> merge_headers({"X-User": "ada", "X-Team": "a"}, {"x-user": "grace"})
        {'X-Team': 'a', 'x-user': 'grace'}
    """
    winners = validate_headers(over)
    replaced = {name.lower() for name in winners}
    others = {k: v for k, v in validate_headers(base).items() if k.lower() not in replaced}
    return others | winners


def _plain_headers(headers: Mapping[str, HeaderValue] | None) -> dict[str, str]:
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise HeaderPolicyError(
            f"headers is a {type(headers).__name__}; give a mapping of names to values."
        )
    plain: dict[str, str] = {}
    seen: dict[str, str] = {}
    for index, (name, value) in enumerate(headers.items(), start=1):
        if not isinstance(name, str) or not is_name(name):
            raise HeaderPolicyError(
                f"Header {index} has a name that HTTP does not allow; it is not shown, as it may "
                "be a value. A name is made of letters, digits and dashes."
            )
        if (other := seen.setdefault(name.lower(), name)) != name:
            raise HeaderPolicyError(
                f"`{other}` and `{name}` are one header to HTTP, and one would be lost. Keep one."
            )
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if not isinstance(text, str):
            raise HeaderPolicyError(f"The value of `{name}` is a {type(text).__name__}; give a string.")
        if not _VALUE.fullmatch(text):
            raise HeaderPolicyError(
                f"The value of `{name}` has a line break, another control character, a character "
                "beyond ASCII, or a blank at an end. Encode it, for example with "
                "urllib.parse.quote."
            )
        plain[name] = text
    return plain
