"""Whether an answer is the deployment's own. Pure.

A gateway answers in the place of a deployment that is being replaced: 404 or 200, with HTML or JSON of
its own. Such an answer says nothing about runs and threads, so it becomes `StrangeAnswerError`, which
is transient like no answer at all.

- A 404 is LangGraph's when it is a JSON object with `detail`.
- What deletes or cancels is answered without a body.
- A success has the shape that LangGraph's API gives it: `_SHAPES`. What stands there is looked for, not
  parsed, so that large answers are not read twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import httpx
import orjson

STREAMED = "prefect_langgraph.streamed"
"""The extension of requests whose answer is read piece by piece, and checked by the reader."""

_OBJECT, _LIST = b"{", b"["
_THREAD, _RUN, _CRON = b'"thread_id"', b'"run_id"', b'"cron_id"'
_ID = "[^/]+"

# Method, end of the path, how the body begins, and what an object, or each of a list, must name.
_SHAPES: list[tuple[str, re.Pattern[str], bytes, bytes]] = [
    (method, re.compile(f"(?:^|/){path}$"), begins, names)
    for method, path, begins, names in (
        ("POST", "threads", _OBJECT, _THREAD),
        ("POST", "threads/search", _LIST, _THREAD),
        ("POST", "threads/prune", _OBJECT, b'"pruned_count"'),
        ("GET", f"threads/{_ID}", _OBJECT, _THREAD),
        ("PATCH", f"threads/{_ID}", _OBJECT, _THREAD),
        ("GET", f"threads/{_ID}/state", _OBJECT, b'"values"'),
        ("POST", f"threads/{_ID}/history", _LIST, b'"checkpoint'),
        ("GET", f"threads/{_ID}/runs", _LIST, _RUN),
        ("POST", f"threads/{_ID}/runs", _OBJECT, _RUN),
        ("GET", f"threads/{_ID}/runs/{_ID}", _OBJECT, _RUN),
        ("POST", "runs/batch", _LIST, _RUN),
        ("POST", f"(?:threads/{_ID}/)?runs/crons", _OBJECT, _CRON),
        ("PATCH", f"runs/crons/{_ID}", _OBJECT, _CRON),
        ("POST", "runs/crons/search", _LIST, _CRON),
        ("POST", "assistants/search", _LIST, b'"assistant_id"'),
    )
]


class StrangeAnswerError(httpx.DecodingError):
    """Something else than LangGraph answered."""


async def refuse_strange_answer(response: httpx.Response) -> None:
    """Raise for an answer that is not LangGraph's own; a response hook of httpx.

    Raises:
        StrangeAnswerError: It is a gateway's, or a stranger's.
    """
    if response.status_code == 404:
        if not _has_detail(await response.aread()):
            raise _strange(response)
    elif response.is_success:
        if "text/html" in response.headers.get("content-type", ""):
            raise _strange(response)
        if response.request.extensions.get(STREAMED):
            return
        if _has_no_body(response.request):
            if (await response.aread()).strip() not in _NOTHING:
                raise _strange(response)
            return
        shape = _shape_of(response.request)
        if shape is not None and not _fits(await response.aread(), *shape):
            raise _strange(response)


# An older server says null, or {}.
_NOTHING = (b"", b"null", b"{}")


def _has_no_body(request: httpx.Request) -> bool:
    return request.method == "DELETE" or (
        request.method == "POST" and request.url.path.endswith("/cancel")
    )


def _shape_of(request: httpx.Request) -> tuple[bytes, bytes] | None:
    for method, path, begins, names in _SHAPES:
        if method == request.method and path.search(request.url.path):
            return begins, names
    return None


def _fits(body: bytes, begins: bytes, names: bytes) -> bool:
    if not body[:100].lstrip().startswith(begins):
        return False
    return names in body or (begins == _LIST and b"".join(body[:100].split()) == b"[]")


def _has_detail(body: bytes) -> bool:
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(said, Mapping) and "detail" in said


def _strange(response: httpx.Response) -> StrangeAnswerError:
    kind = response.headers.get("content-type", "no content type").partition(";")[0]
    return StrangeAnswerError(
        f"{response.status_code} with {kind}, which is not LangGraph's own", request=response.request
    )
