"""A trace that begins in Prefect goes on in the run, with OpenTelemetry in the process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from prefect import flow

from prefect_langgraph import (
    HeaderPolicy,
    LangGraphCredentials,
    arun_stateless,
    fan_out,
    join_runs,
    run_stateless,
    start_runs,
    stream_run,
)
from proxy import Proxy

pytestmark = pytest.mark.usefixtures("prefect_server")

CREATES = r"/runs(/batch|/stream)?$"
QUESTION = {"question": "What?"}
TRACER = TracerProvider().get_tracer("tests")


@pytest.fixture
def span() -> Iterator[trace.Span]:
    """The process is inside a span, and has baggage."""
    token = context.attach(baggage.set_baggage("team", "refunds"))
    with TRACER.start_as_current_span("nightly") as span:
        yield span
    context.detach(token)


def sent(proxy: Proxy) -> list[dict[str, str]]:
    """The headers of the requests that made runs."""
    made = proxy.seen("POST", CREATES)
    return [{name.lower(): value for name, value in request.headers.items()} for request in made]


def trace_of(headers: dict[str, str]) -> str | None:
    return headers["traceparent"].split("-")[1] if "traceparent" in headers else None


def test_runs_belong_to_the_trace_of_their_caller(
    span: trace.Span, through_proxy: LangGraphCredentials, proxy: Proxy
) -> None:
    @flow
    def nightly() -> None:
        run_stateless("answer", QUESTION, credentials=through_proxy)
        asyncio.run(arun_stateless("answer", QUESTION, credentials=through_proxy))
        join_runs(start_runs("answer", [QUESTION] * 2, credentials=through_proxy))
        list(stream_run("answer", QUESTION, credentials=through_proxy))

    nightly()
    fan_out("answer", [QUESTION], credentials=through_proxy)
    wanted = trace.format_trace_id(span.get_span_context().trace_id)
    found = sent(proxy)
    assert len(found) >= 5
    assert {trace_of(headers) for headers in found} == {wanted}
    assert {headers["baggage"] for headers in found} == {"team=refunds"}


def test_without_a_span_nothing_is_added(through_proxy: LangGraphCredentials, proxy: Proxy) -> None:
    run_stateless("answer", QUESTION, credentials=through_proxy)
    (headers,) = sent(proxy)
    assert not {"traceparent", "baggage"} & headers.keys()


def test_callers_own_headers_and_the_policy_come_first(span: trace.Span, proxy: Proxy) -> None:
    policy = HeaderPolicy(deny=("baggage",), includes=("traceparent",))
    block = LangGraphCredentials(url=proxy.url, header_policy=policy)
    own = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    run_stateless("answer", QUESTION, credentials=block, headers={"Traceparent": own})
    (headers,) = sent(proxy)
    assert headers["traceparent"] == own
    assert "baggage" not in headers
