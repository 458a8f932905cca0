"""Every error that a request can give becomes one of ours, says what the server said, and no secret."""

from __future__ import annotations

import asyncio
import inspect
import json
import pickle
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import langgraph_sdk.errors as sdk
import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from prefect_langgraph import errors as ours
from prefect_langgraph import models, results
from prefect_langgraph.transport.connection import Connection
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.deployment import Deployment, InDoubtError
from prefect_langgraph.transport.http_errors import (
    detail_of,
    is_transient,
    not_executed,
    redacted,
    refuse_redirect,
    retry_after_of,
    to_error,
)

URL = "http://agents.example.com"
REQUEST = httpx.Request("POST", f"{URL}/threads")


def response(status: int, body: Any = None, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json=body, headers=named, request=REQUEST)


def status_error(status: int, body: Any = None, **headers: str) -> httpx.HTTPStatusError:
    """What the SDK's `join` and `wait` raise: httpx's own error, the body in its notes."""
    answer = response(status, body, **headers)
    error = httpx.HTTPStatusError(f"{status} of {URL}", request=REQUEST, response=answer)
    if body is not None:
        error.add_note(json.dumps(body))
    return error


def typed(cls: type[sdk.APIStatusError], status: int, body: Any = None) -> sdk.APIStatusError:
    """What the SDK's other calls raise."""
    return cls("said", response=response(status, body), body=body)


def mapped(error: Exception, hidden: Any = None) -> ours.DeploymentError:
    return to_error(error, url=URL, doing="start a run of agent", hidden=hidden)


# The mapping is complete

Case = tuple[Callable[[], Exception], type[ours.DeploymentError], bool, bool]

# Of each error: how to make one, ours, whether it is transient, whether it surely was not executed.
SDK: dict[str, Case] = {
    "BadRequestError": (
        lambda: typed(sdk.BadRequestError, 400),
        ours.InvalidRequestError,
        False,
        True,
    ),
    "AuthenticationError": (
        lambda: typed(sdk.AuthenticationError, 401),
        ours.AuthenticationError,
        False,
        True,
    ),
    "PermissionDeniedError": (
        lambda: typed(sdk.PermissionDeniedError, 403),
        ours.AuthenticationError,
        False,
        True,
    ),
    "NotFoundError": (lambda: typed(sdk.NotFoundError, 404), ours.NotFoundError, False, True),
    "ConflictError": (lambda: typed(sdk.ConflictError, 409), ours.InvalidRequestError, False, True),
    "UnprocessableEntityError": (
        lambda: typed(sdk.UnprocessableEntityError, 422),
        ours.InvalidRequestError,
        False,
        True,
    ),
    "RateLimitError": (lambda: typed(sdk.RateLimitError, 429), ours.RateLimitedError, True, True),
    "InternalServerError": (
        lambda: typed(sdk.InternalServerError, 500),
        ours.UnreachableError,
        True,
        False,
    ),
    "APIStatusError": (lambda: typed(sdk.APIStatusError, 413), ours.InvalidRequestError, False, True),
    "APIError": (lambda: sdk.APIError("said", REQUEST, body=None), ours.DeploymentError, False, False),
    "APIConnectionError": (
        lambda: sdk.APIConnectionError(request=REQUEST),
        ours.UnreachableError,
        True,
        False,
    ),
    "APITimeoutError": (lambda: sdk.APITimeoutError(REQUEST), ours.UnreachableError, True, False),
    "APIResponseValidationError": (
        lambda: sdk.APIResponseValidationError(response(200), None),
        ours.UnreachableError,
        True,
        False,
    ),
    "LangGraphError": (lambda: sdk.LangGraphError("said"), ours.DeploymentError, False, False),
}


def lost(cls: type[Exception], *, sent: bool = True) -> Case:
    return lambda: cls("said"), ours.UnreachableError, True, not sent


def misuse(cls: type[Exception]) -> Case:
    return lambda: cls("said"), ours.DeploymentError, False, False


HTTPX: dict[str, Case] = {
    "ConnectError": lost(httpx.ConnectError, sent=False),
    "ConnectTimeout": lost(httpx.ConnectTimeout, sent=False),
    "PoolTimeout": lost(httpx.PoolTimeout, sent=False),
    "ProxyError": lost(httpx.ProxyError, sent=False),
    "ReadError": lost(httpx.ReadError),
    "ReadTimeout": lost(httpx.ReadTimeout),
    "WriteError": lost(httpx.WriteError),
    "WriteTimeout": lost(httpx.WriteTimeout),
    "CloseError": lost(httpx.CloseError),
    "NetworkError": lost(httpx.NetworkError),
    "ProtocolError": lost(httpx.ProtocolError),
    "RemoteProtocolError": lost(httpx.RemoteProtocolError),
    "TimeoutException": lost(httpx.TimeoutException),
    "TransportError": lost(httpx.TransportError),
    "DecodingError": lost(httpx.DecodingError),
    "LocalProtocolError": (
        lambda: httpx.LocalProtocolError("said"),
        ours.InvalidRequestError,
        False,
        False,
    ),
    "UnsupportedProtocol": (
        lambda: httpx.UnsupportedProtocol("said"),
        ours.InvalidRequestError,
        False,
        True,
    ),
    "InvalidURL": (lambda: httpx.InvalidURL("said"), ours.InvalidRequestError, False, True),
    "HTTPStatusError": (lambda: status_error(500), ours.UnreachableError, True, False),
    "HTTPError": misuse(httpx.HTTPError),
    "RequestError": misuse(httpx.RequestError),
    "TooManyRedirects": misuse(httpx.TooManyRedirects),
    "CookieConflict": misuse(httpx.CookieConflict),
    "StreamError": misuse(httpx.StreamError),
    "StreamConsumed": (httpx.StreamConsumed, ours.DeploymentError, False, False),
    "StreamClosed": (httpx.StreamClosed, ours.DeploymentError, False, False),
    "ResponseNotRead": (httpx.ResponseNotRead, ours.DeploymentError, False, False),
    "RequestNotRead": (httpx.RequestNotRead, ours.DeploymentError, False, False),
}

BY_STATUS = {
    **dict.fromkeys((301, 302, 307, 308, 400, 405, 409, 413, 415, 422), ours.InvalidRequestError),
    401: ours.AuthenticationError,
    403: ours.AuthenticationError,
    404: ours.NotFoundError,
    429: ours.RateLimitedError,
    **dict.fromkeys((500, 501, 502, 503, 504, 507, 520, 529), ours.UnreachableError),
}


def exceptions_of(module: Any) -> set[str]:
    return {
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, Exception) and not name.startswith("_")
    }


def test_every_error_of_the_sdk_is_in_the_table() -> None:
    assert exceptions_of(sdk) == SDK.keys()


def test_every_error_of_httpx_is_in_the_table() -> None:
    assert exceptions_of(httpx) == HTTPX.keys()


@pytest.mark.parametrize("name", [*SDK, *HTTPX])
def test_error_of_a_request_becomes_one_of_ours(name: str) -> None:
    make, expected, transient, unexecuted = {**SDK, **HTTPX}[name]
    error = make()
    assert type(mapped(error)) is expected
    assert is_transient(error) is transient
    assert not_executed(error) is unexecuted


@pytest.mark.parametrize("status", BY_STATUS)
def test_status_decides_the_same_for_typed_and_plain_errors(status: int) -> None:
    plain = status_error(status)
    either = [plain, sdk.APIStatusError("said", response=response(status), body=None)]
    for error in either:
        found = mapped(error)
        assert type(found) is BY_STATUS[status]
        assert found.status_code == status
        assert found.url == URL
        assert is_transient(error) is (status == 429 or (status >= 500 and status != 501))
        assert not_executed(error) is (status < 500)


def test_error_that_a_retry_helps_is_the_one_that_tasks_retry() -> None:
    for make, _, transient, _ in (*SDK.values(), *HTTPX.values()):
        retried = isinstance(mapped(make()), ours.UnreachableError | ours.RateLimitedError)
        assert retried is transient


def test_answer_that_is_no_json_says_so() -> None:
    with pytest.raises(orjson.JSONDecodeError) as caught:
        orjson.loads("<html>")
    error = mapped(caught.value)
    assert type(error) is ours.UnreachableError
    assert "cannot be read (JSONDecodeError" in error.message
    assert is_transient(caught.value)
    assert not not_executed(caught.value)


def test_error_that_is_nobodys_is_not_called_unreachable() -> None:
    assert type(mapped(RuntimeError("closed"))) is ours.DeploymentError
    assert type(mapped(TypeError("odd"))) is ours.InvalidRequestError


# What the message says


@pytest.mark.parametrize(
    "make", [lambda body: status_error(422, body), lambda body: typed(sdk.APIStatusError, 422, body)]
)
@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"detail": "No assistant of that name"}, "No assistant of that name"),
        ({"message": "No assistant of that name"}, "No assistant of that name"),
        ({"error": "No assistant of that name"}, "No assistant of that name"),
        ({"detail": [{"loc": ["body"], "msg": "missing"}]}, '[{"loc":["body"],"msg":"missing"}]'),
    ],
)
def test_detail_of_the_server_is_in_the_message(
    make: Callable[[Any], Exception], body: Any, detail: str
) -> None:
    assert detail in mapped(make(body)).message


def test_plain_text_of_the_server_is_in_the_message() -> None:
    error = status_error(500)
    error.add_note("Internal Server Error, on node 7\n")
    assert "(Internal Server Error, on node 7)" in mapped(error).message


def test_error_without_a_text_is_named_once() -> None:
    assert "(ReadTimeout)" in mapped(httpx.ReadTimeout("")).message
    assert detail_of(httpx.ReadTimeout("")) == "ReadTimeout"


@pytest.mark.parametrize("name", [*SDK, *HTTPX])
def test_message_says_what_was_done_where(name: str) -> None:
    make, *_ = {**SDK, **HTTPX}[name]
    message = mapped(make()).message
    assert message.startswith("Could not start a run of agent")
    assert URL in message or name in message


def test_message_stays_short_whatever_the_server_says() -> None:
    assert len(mapped(status_error(400, {"detail": "x" * 100_000})).message) < 800


def test_redirect_is_an_error_that_names_its_target_without_the_query() -> None:
    answer = response(301, location="https://agents.example.com/threads?token=s3cr3t")
    with pytest.raises(httpx.HTTPStatusError) as caught:
        refuse_redirect(answer)
    error = mapped(caught.value)
    assert type(error) is ours.InvalidRequestError
    assert "redirects (301 to https://agents.example.com/threads)" in error.message
    assert "s3cr3t" not in error.message


def test_answer_that_is_no_redirect_passes() -> None:
    for status in (200, 204, 304, 404, 500):
        refuse_redirect(response(status))


# What the message never says

texts = st.text(min_size=4, max_size=30)
payloads = st.recursive(
    texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
QUOTES: list[Callable[[str], str]] = [
    str,
    repr,
    json.dumps,
    lambda text: json.dumps(text, ensure_ascii=False),
    lambda text: orjson.dumps(text).decode(),
    lambda text: text.encode("unicode_escape").decode(),
    lambda text: f"Got {text!r} for {json.dumps(text)}",
]


def leaves(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value
    return [leaf for item in inner for leaf in leaves(item)]


@given(payload=payloads, quote=st.sampled_from(QUOTES))
def test_no_text_of_the_payload_comes_through_however_it_is_quoted(
    payload: Any, quote: Callable[[str], str]
) -> None:
    for text in leaves(payload):
        # What our own words or the replacement contain cannot be told from them.
        quoted = quote(text)
        assume("…" not in quoted and text not in "Got  for ")
        shown = redacted(f"<{quoted}>", payload)
        assert text not in shown
        assert quoted.strip("'\"") not in shown


def test_numbers_of_the_payload_do_not_come_through() -> None:
    hidden = {"input": {"card": 4111111111111111, "rate": 0.12345}}
    assert (
        redacted("4111111111111111 is too many, 0.12345 too few", hidden) == "… is too many, … too few"
    )


@pytest.mark.parametrize(
    ("sent", "quoted"),
    [
        ("Bearer a1B2c3D4", "token a1B2c3D4 has expired"),
        ("https://ada:hunter2!@example.com/hook?token=s3cr3t-5", "hunter2! of ada, s3cr3t-5"),
        ("Ask with my key sk-12345, please", "no such key: 'sk-12345'"),
    ],
)
def test_words_of_a_text_that_only_it_can_have_do_not_come_through(sent: str, quoted: str) -> None:
    shown = redacted(quoted, {"input": sent})
    assert not {"a1B2c3D4", "hunter2!", "s3cr3t-5", "sk-12345"} & set(re.split(r"[ ,']", shown))
    assert "…" in shown


def test_redirect_is_told_without_what_its_address_may_hide() -> None:
    location = "https://ada:hunter2@other.example.com/api?token=s3cr3t#f1nal"
    answer = httpx.Response(307, headers={"location": location}, request=REQUEST)
    with pytest.raises(httpx.HTTPStatusError) as raised:
        refuse_redirect(answer)
    assert str(raised.value) == "307 to https://other.example.com/api"


def test_words_that_the_server_says_by_itself_come_through() -> None:
    assert redacted("'messages' is required", {"input": {"messages": [], "a": True}}) == (
        "'messages' is required"
    )


@pytest.mark.parametrize("name", ["UnprocessableEntityError", "RateLimitError", "InternalServerError"])
def test_message_hides_input_secret_and_header_value(name: str) -> None:
    secrets = ["lsv2_pt_key", "Bearer token-7", "my question", "line\nbreak", 'with "quotes"', "it's"]
    body = {"detail": json.dumps(secrets) + repr(secrets) + " is wrong"}
    status = {"UnprocessableEntityError": 422, "RateLimitError": 429, "InternalServerError": 500}[name]
    error = mapped(typed(getattr(sdk, name), status, body), {"input": secrets})
    for secret in secrets:
        assert secret not in error.message
    assert "is wrong" in error.message


# Retry-After

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0),
        ("Sun, 01 Mar 2026 12:00:30 -0000", 30.0),
    ],
)
def test_retry_after_is_read_in_both_its_forms(header: str, expected: float | None) -> None:
    error = status_error(429, retry_after=header)
    assert retry_after_of(error, NOW) == expected


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_retry_after_of_any_text_is_a_pause_or_nothing(header: str) -> None:
    pause = retry_after_of(status_error(429, retry_after=header), NOW)
    assert pause is None or pause >= 0


def test_error_without_an_answer_has_no_retry_after() -> None:
    assert retry_after_of(httpx.ReadTimeout("")) is None
    assert retry_after_of(status_error(503)) is None


def test_rate_limited_error_tells_how_long_the_server_asked_to_wait() -> None:
    error = mapped(status_error(429, retry_after="7"))
    assert isinstance(error, ours.RateLimitedError)
    assert error.retry_after == 7.0


# Sending


class Server(httpx.AsyncBaseTransport):
    """Answers each request with the next of its answers, the last one for ever."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


@asynccontextmanager
async def sending(server: Server, *, max_wait_seconds: float | None = None) -> AsyncIterator[Any]:
    connection = Connection(URL, api_key="lsv2_pt_key", patience_seconds=1.0)
    deployment = Deployment(connection)
    http = deployment.client.http.client
    http._transport = server
    threads = deployment.client.threads
    try:
        yield lambda **options: deployment.send(
            lambda: threads.get("t"),
            doing="ask",
            deadline=Deadline.after(max_wait_seconds),
            **options,
        )
    finally:
        await http.aclose()


def send(server: Server, *, max_wait_seconds: float | None = None, **options: Any) -> Any:
    async def main() -> Any:
        async with sending(server, max_wait_seconds=max_wait_seconds) as send_with:
            return await send_with(**options)

    return asyncio.run(main())


GOOD = response(200, {"thread_id": "t"})


@pytest.mark.parametrize(
    "failure",
    [
        response(429, retry_after="0"),
        response(503, retry_after="0"),
        response(500),
        httpx.ConnectError("refused"),
        httpx.ReadError("closed"),
        httpx.Response(200, text="<html>wait</html>", request=REQUEST),
        httpx.DecodingError("no gzip"),
    ],
    ids=["429", "503", "500", "refused", "closed", "html", "gzip"],
)
def test_what_is_transient_is_sent_again(failure: httpx.Response | Exception) -> None:
    server = Server(failure, GOOD)
    assert send(server) == {"thread_id": "t"}
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 301])
def test_what_is_not_transient_is_sent_once(status: int) -> None:
    headers = {"location": "/elsewhere"} if status == 301 else {}
    server = Server(response(status, {"detail": "no"}, **headers))
    with pytest.raises(ours.DeploymentError):
        send(server)
    assert len(server.requests) == 1


def test_server_that_is_not_there_is_given_up_after_the_connections_patience() -> None:
    server = Server(httpx.ConnectError("refused"))
    with pytest.raises(ours.UnreachableError, match="no answer"):
        send(server)
    assert 2 <= len(server.requests) <= 10


def test_server_that_is_overloaded_for_ever_is_given_up_at_the_callers_deadline() -> None:
    server = Server(response(429, retry_after="0"))
    with pytest.raises(ours.RateLimitedError):
        send(server, max_wait_seconds=1.0)
    # Also when told to come back at once it is not asked in a tight loop.
    assert 3 <= len(server.requests) <= 12


def test_pause_that_the_server_asks_for_beyond_the_deadline_is_not_begun() -> None:
    server = Server(response(503, retry_after="3600"))
    with pytest.raises(ours.UnreachableError):
        send(server, max_wait_seconds=60.0)
    assert len(server.requests) == 1


def test_request_that_must_not_be_repeated_is_in_doubt_once_it_left() -> None:
    server = Server(httpx.ReadTimeout(""))
    with pytest.raises(InDoubtError) as caught:
        send(server, repeatable=False)
    assert len(server.requests) == 1
    assert getattr(caught.value.public(), "in_doubt", False)


def test_request_that_must_not_be_repeated_is_repeated_when_it_never_left() -> None:
    server = Server(httpx.ConnectError("refused"), response(429, retry_after="0"), GOOD)
    assert send(server, repeatable=False) == {"thread_id": "t"}
    assert len(server.requests) == 3


def test_secret_that_the_server_repeats_is_not_in_the_error() -> None:
    server = Server(response(401, {"detail": "the key lsv2_pt_key is unknown"}))
    with pytest.raises(ours.AuthenticationError) as caught:
        send(server)
    assert "lsv2_pt_key" not in str(caught.value)
    assert "the key … is unknown" in str(caught.value)


# Pickling

HANDLE = models.RunHandle(run_id="r", thread_id="t", assistant_id="a", url=URL)
RESULT = results.FanOutResult(results=(results.RunResult(handle=HANDLE, status=models.RunStatus.LOST),))
RUN: dict[str, Any] = {"handle": HANDLE, "status": models.RunStatus.ERROR, "values": {"a": 1}}

PICKLED: list[ours.LangGraphError] = [
    ours.LangGraphError("said"),
    ours.RunError("said", **RUN),
    ours.RunFailedError("said", **RUN, error="ValueError", detail="boo"),
    ours.RunTimeoutError("said", **RUN),
    ours.RunCancelledError("said", **RUN),
    ours.RunInterruptedError("said", **RUN, interrupts=[{"id": "1", "value": 2}]),
    ours.RunLostError("said", **RUN),
    ours.JoinTimeoutError("said", handle=HANDLE, max_wait_seconds=2, result=RESULT),
    ours.FanOutError("said", [ours.RunLostError("said", **RUN)], RESULT),
    ours.StreamBrokenError("said", handle=HANDLE, last_event_id="7"),
    ours.DeploymentError("said", status_code=418, url=URL),
    ours.AuthenticationError("said", status_code=401, url=URL),
    ours.NotFoundError("said", status_code=404, url=URL),
    ours.ThreadBusyError("said", status_code=409, url=URL),
    ours.InvalidRequestError("said", status_code=422, url=URL),
    ours.RateLimitedError("said", url=URL, retry_after=2.0),
    ours.UnreachableError("said", status_code=502, url=URL),
    ours.ScheduleError("said"),
    ours.HeaderPolicyError("said"),
]


def test_every_error_of_ours_is_pickled_here() -> None:
    assert exceptions_of(ours) == {type(error).__name__ for error in PICKLED}


@pytest.mark.parametrize("error", PICKLED, ids=lambda error: type(error).__name__)
def test_error_survives_pickling(error: ours.LangGraphError) -> None:
    error.add_note("a note")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert type(again) is type(error)
    assert str(again) == str(error) == "said"
    known, found = dict(vars(error)), dict(vars(again))
    assert known.keys() == found.keys()
    assert repr(known) == repr(found)


def test_fan_out_error_survives_pickling_with_its_errors_and_splits_like_a_group() -> None:
    error = ours.FanOutError("said", [ours.RunLostError("said", **RUN)], RESULT)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert [type(inner) for inner in again.exceptions] == [ours.RunLostError]
    assert again.result == RESULT
    matched, rest = again.split(ours.RunLostError)
    assert isinstance(matched, ours.FanOutError)
    assert matched.result == RESULT
    assert rest is None


def test_in_doubt_survives_pickling() -> None:
    error = ours.UnreachableError("said")
    error.in_doubt = True
    assert pickle.loads(pickle.dumps(error)).in_doubt  # noqa: S301 - our own


PAGE = """<!DOCTYPE html>
<html><head><title>502 Bad
Gateway</title><style>body {color: red}</style></head><body><h1>Sorry</h1></body></html>"""


@pytest.mark.parametrize("status", [302, 401, 404, 418, 429, 500, 502])
@pytest.mark.parametrize("page", [PAGE, "<html><body>wait</body></html>", "  <HTML>", "<h1>no</h1>"])
def test_page_of_a_gateway_is_named_and_not_shown(status: int, page: str) -> None:
    answer = httpx.Response(status, text=page, request=REQUEST)
    noted = httpx.HTTPStatusError("said", request=REQUEST, response=answer)
    noted.add_note(page)
    for error in (noted, sdk.APIStatusError("said", response=answer, body=page)):
        message = str(mapped(error))
        assert "<" not in message
        assert "a web page" in message
        assert ("502 Bad Gateway" in message) is (page is PAGE)


def test_hint_names_no_parameter_that_the_caller_may_not_have() -> None:
    for status in (401, 404, 418, 429, 500):
        message = str(mapped(status_error(status, {"detail": "no"})))
        assert "max_wait_seconds" not in message
        assert "=" not in message
