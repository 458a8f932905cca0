"""What can go wrong with a request, as the errors of this package. Pure.

Every error of `langgraph_sdk.errors` and every `httpx` error that a request can give ends here; a
test proves the mapping complete.

- Transient: the same request may succeed later. No answer, one that is no JSON, 429, 5xx but for 501.
- Not executed: the server surely did not act on it, so it may be sent again.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import orjson
from langgraph_sdk.errors import APIConnectionError, APIResponseValidationError

from prefect_langgraph.errors import (
    AuthenticationError,
    DeploymentError,
    InvalidRequestError,
    NotFoundError,
    RateLimitedError,
    UnreachableError,
)
from prefect_langgraph.headers.tokens import TokenError

# These are raised before a byte of the request is on its way.
_NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)


class UnreadableAnswerError(Exception):
    """An answer that is JSON, and not what was asked for. Its text never quotes the answer."""


class NoWholeAnswerError(httpx.ReadTimeout):
    """The time for a request passed before its answer was there as a whole."""


# Something answered, but not as LangGraph's API does: a proxy's page, or a wrong address.
_UNREADABLE = (
    httpx.DecodingError,
    orjson.JSONDecodeError,
    APIResponseValidationError,
    UnreadableAnswerError,
)

_TRANSIENT = (httpx.TransportError, APIConnectionError, *_UNREADABLE)

_PERMANENT = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)

_WRONG_CALL = (*_PERMANENT, httpx.InvalidURL, ValueError, TypeError)

_MAX_DETAIL = 500

# So much of what the server says is looked at; a text counts as quoted from its first so many letters.
_LOOKED_AT, _HEAD, _SHORTEST = 4000, 16, 4

# Letters that are written alike in all of these.
_SAME_EVERYWHERE = re.compile(r"[ !#-&(-\[\]-~]*")

# How Pydantic quotes a value that it refuses.
_QUOTED_INPUT = re.compile(r"input_value=.*?(, input_type=\w+\]|$)", re.DOTALL)

# What a server may quote of a text: the token of "Bearer a1B2", the password of an address.
_WORD = re.compile(r"[^\s:/?#&=@,;\"'()<>\[\]{}]{6,256}")

_PAGE = re.compile(r"<\s*(?:!doctype|html|head|body|title|h[1-6]|div|p|center)\b[^>]*>", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>([^<]*)", re.IGNORECASE)
_PLAIN_WORD = re.compile(r"[A-Za-z][a-z]*")


def row_of(answer: Any, *names: str) -> dict[str, Any]:
    """An answer that must be one JSON object with these names.

    Raises:
        UnreadableAnswerError: It is something else.
    """
    if not isinstance(answer, Mapping) or any(name not in answer for name in names):
        raise UnreadableAnswerError("it is not the object that was asked for")
    return dict(answer)


def rows_of(answer: Any, *names: str) -> list[dict[str, Any]]:
    """An answer that must be a list of such objects; null is an empty one.

    Raises:
        UnreadableAnswerError: It is something else.
    """
    if not isinstance(answer, list | None):
        raise UnreadableAnswerError("it is not the list that was asked for")
    return [row_of(row, *names) for row in answer or ()]


def status_code_of(error: Exception) -> int | None:
    """The HTTP status by which the server refused, or None."""
    response = getattr(error, "response", None)
    status = response.status_code if isinstance(response, httpx.Response) else 0
    return status if status >= 300 else None


def refuse_redirect(response: httpx.Response) -> None:
    """Raise for a redirect: the SDK would take its empty body for an answer.

    Raises:
        httpx.HTTPStatusError: With a status of 300 to 399.
    """
    if response.has_redirect_location:
        target = response.request.url.join(response.headers["location"])
        target = target.copy_with(query=None, fragment=None, username="", password="")
        raise httpx.HTTPStatusError(
            f"{response.status_code} to {target}", request=response.request, response=response
        )


async def arefuse_redirect(response: httpx.Response) -> None:
    """Raise for a redirect: `refuse_redirect` as an asynchronous client wants it."""
    refuse_redirect(response)


def is_transient(error: Exception) -> bool:
    """True when the same request may succeed later: no answer, 429, or 5xx but for 501."""
    status = status_code_of(error)
    if status is not None:
        # 501 is for what the server will never do.
        return status == 429 or (status >= 500 and status != 501)
    return isinstance(error, _TRANSIENT) and not isinstance(error, _PERMANENT)


def not_executed(error: Exception) -> bool:
    """True when the server surely did not act on the request."""
    status = status_code_of(error)
    if status is not None:
        return status < 500
    return isinstance(error, _NEVER_SENT)


def retry_after_of(error: Exception, now: datetime | None = None) -> float | None:
    """Seconds the server asked to wait, from `Retry-After` in either of its forms."""
    response = getattr(error, "response", None)
    header = response.headers.get("retry-after") if isinstance(response, httpx.Response) else None
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        pass  # not seconds, so a date
    else:
        return max(0.0, seconds) if math.isfinite(seconds) else None
    try:
        at = parsedate_to_datetime(header)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - (now or datetime.now(UTC))).total_seconds())


def detail_of(error: Exception) -> str:
    """What the server said, from the body, the notes of a plain httpx error, or the text.

    Of a web page, which a gateway or a portal answers, it is the title.
    """
    said = _said(error)
    if _PAGE.search(said) is None:
        return said
    title = _TITLE.search(said)
    words = re.sub(r"[<>]", "", html.unescape(title[1])).split() if title is not None else []
    return f"a web page: {' '.join(words)}" if words else "a web page"


def _said(error: Exception) -> str:
    body = getattr(error, "body", None)
    if body is None:
        body = next(iter(getattr(error, "__notes__", [])), None)
    if isinstance(body, str):
        try:
            body = orjson.loads(body)
        except orjson.JSONDecodeError:
            return body.strip()
    if isinstance(body, Mapping):
        for name in ("detail", "message", "error"):
            if body.get(name):
                value = body[name]
                return value if isinstance(value, str) else orjson.dumps(value).decode()
    return str(error).strip() or type(error).__name__


def without_quoted_inputs(text: str) -> str:
    """The text of an error without the values that Pydantic quotes in it."""
    return _QUOTED_INPUT.sub(r"input_value=…\1", text)


def redacted(text: str, hidden: Any) -> str:
    """`text` without any text that `hidden`, a request's payload and secrets, contains.

    Nor does it have a word of such a text by itself, but for words that any sentence may have. The time
    it takes grows with the size of `hidden` and with nothing else, and no step of it is long.
    """
    quoted = without_quoted_inputs(text[:_LOOKED_AT])
    starts = {quoted[at : at + _SHORTEST] for at in range(len(quoted))}
    marks = bytearray(len(quoted))
    for part in _texts(hidden):
        if len(part) < _SHORTEST:
            continue
        start = part[:_SHORTEST]
        if start not in starts and start.isascii() and start.isalnum():
            continue  # nearly all of a large payload ends here
        for form in _forms(part[:_LOOKED_AT]):
            _mark(quoted, form, marks)
    # What was cut off may belong to a text that is hidden.
    shown = len(quoted) if len(text) <= _LOOKED_AT else _LOOKED_AT // 2
    kept = "".join("\0" if marks[at] else quoted[at] for at in range(min(shown, len(quoted))))
    kept = re.sub("\0+", "…", kept)
    return kept if len(kept) <= _MAX_DETAIL else kept[:_MAX_DETAIL] + "…"


def _mark(quoted: str, form: str, marks: bytearray) -> None:
    """Mark where a text is quoted, also where only its beginning is."""
    head = form[:_HEAD]
    start = quoted.find(head)
    while start >= 0:
        length = len(head)
        while quoted[start + length : start + length + 1] == form[length : length + 1] != "":
            length += 1
        marks[start : start + length] = b"\1" * length
        start = quoted.find(head, start + length - len(head) + 1)


def _forms(part: str) -> set[str]:
    """The ways in which a server may quote a text: as it is, in JSON, and as Python shows it."""
    if _SAME_EVERYWHERE.fullmatch(part):
        return {part}
    escaped = part.encode("unicode_escape").decode()
    shown = repr(part)[1:-1]
    quoted = {json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1], shown, escaped}
    return {part, *quoted, *(form.replace("'", "\\'") for form in (part, shown))}


def _texts(value: Any) -> Iterator[str]:
    """The texts, words and numbers of a value. However deep and large it is, each step is short."""
    inside = [iter((value,))]
    while inside:
        for item in inside[-1]:
            if isinstance(item, str):
                yield item
                for match in _WORD.finditer(item):
                    if not _PLAIN_WORD.fullmatch(match[0]):
                        yield match[0]
            elif isinstance(item, int | float):
                if not isinstance(item, int) or item.bit_length() < _LOOKED_AT:
                    yield str(item)
            elif isinstance(item, Mapping):
                inside.append(iter(item.values()))
                break
            elif isinstance(item, Iterable) and not isinstance(item, bytes):
                inside.append(iter(item))
                break
        else:
            inside.pop()


def _of_other_status(status: int, detail: str, *, url: str, doing: str) -> DeploymentError:
    """The error for a status that has no class of its own."""
    if status < 400:
        return InvalidRequestError(
            f"Could not {doing}: {url} redirects ({detail}). Give the credentials block the address "
            "that it leads to.",
            status_code=status,
            url=url,
        )
    if status < 500:
        return InvalidRequestError(
            f"Could not {doing}: {url} refused the request ({status}: {detail}).",
            status_code=status,
            url=url,
        )
    return UnreachableError(
        f"Could not {doing}: {url} answered {status} ({detail}). A retry looks first for what "
        "was started.",
        status_code=status,
        url=url,
    )


def _unquoted(error: Exception) -> str:
    """What can be said of an error without a word of the server's."""
    response = getattr(error, "response", None)
    if isinstance(response, httpx.Response):
        return response.reason_phrase or "no reason given"
    if isinstance(error, httpx.HTTPError | UnreadableAnswerError):
        return str(error).strip() or type(error).__name__
    return type(error).__name__


def to_error(
    error: Exception, *, url: str, doing: str, hidden: Any = None, quotes: bool = True
) -> DeploymentError:
    """The `DeploymentError` for what an SDK call raised.

    Args:
        error: What the SDK or httpx raised.
        url: The deployment's address.
        doing: What was being done, for the message: `start a run of agent`.
        hidden: Payload and secrets of the request; none of their texts comes into the message.
        quotes: False says nothing of what the server said: it may quote what a run was given.
    """
    if isinstance(error, TokenError):
        return AuthenticationError(f"Could not {doing}: no token for {url}: {error}.", url=url)
    status = status_code_of(error)
    detail = redacted(detail_of(error), hidden) if quotes else _unquoted(error)
    if status in (401, 403):
        verb = "refused the key" if status == 401 else "does not allow this"
        return AuthenticationError(
            f"Could not {doing}: {url} {verb} ({status}: {detail}). Check the credentials block's "
            "api_key and headers.",
            status_code=status,
            url=url,
        )
    if status == 404:
        return NotFoundError(
            f"Could not {doing}: not found at {url} (404: {detail}). Check the id and that the "
            "url is the deployment's.",
            status_code=404,
            url=url,
        )
    if status == 429:
        return RateLimitedError(
            f"Could not {doing}: {url} answered 429 until the deadline ({detail}). "
            "Ask for less at once, or wait longer.",
            url=url,
            retry_after=retry_after_of(error),
        )
    if status is not None:
        found = _of_other_status(status, detail, url=url, doing=doing)
        if isinstance(found, UnreachableError):
            found.retry_after = retry_after_of(error)
        return found
    name = type(error).__name__
    said = name if detail == name else f"{name}: {detail}"
    if isinstance(error, _UNREADABLE):
        unread = UnreachableError(
            f"Could not {doing}: the answer from {url} cannot be read ({said}). Check that the url is "
            "the deployment's and what is between. A retry looks first for what was started.",
            url=url,
        )
        unread.unreadable = True
        return unread
    if is_transient(error):
        unheard = UnreachableError(
            f"Could not {doing}: no answer from {url} ({said}). Check that the url is right and the "
            "deployment runs. A retry looks first for what was started.",
            url=url,
        )
        unheard.silent = isinstance(error, httpx.ReadTimeout)
        return unheard
    if isinstance(error, _WRONG_CALL):
        return InvalidRequestError(f"Could not {doing}: {said}", url=url)
    return DeploymentError(f"Could not {doing} at {url}: {said}", url=url)


def failed_on_input(doing: str, url: str) -> InvalidRequestError:
    """The error for an input on which the server fails each time, while it is there for others."""
    return InvalidRequestError(
        f"Could not {doing}: {url} fails on this input. It answers 500 whenever this is sent, and it "
        "answers other requests meanwhile, so nothing was started and a retry would not help. Look for "
        "a value that its database cannot hold, such as a NUL character, and into its log.",
        status_code=500,
        url=url,
    )
