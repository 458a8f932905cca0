"""Where a run is looked at: templates of a block, and what is made of them."""

from __future__ import annotations

from typing import Any

import pytest

from prefect_langgraph import LangGraphCredentials, Question, RunHandle
from prefect_langgraph.approvals.page import page_of
from prefect_langgraph.links import STUDIO, check_template
from prefect_langgraph.results import FanOutResult, RunFailure, RunResult, RunStatus, error_of
from prefect_langgraph.transport.deployment import Deployment

TRACE = "https://smith.example.com/o/org/projects/p/mail/r/{run_id}?poll=true"
OWN_STUDIO = "https://studio.example.com/{assistant_id}?at={url}&thread={thread_id}"


def handle_of(**fields: Any) -> RunHandle:
    block = LangGraphCredentials(url="http://localhost:2024", **fields)
    return Deployment(block.connection()).handle("run-1", "thread-1", "mail / agent")


def test_handle_leads_to_the_pages_of_its_run() -> None:
    handle = handle_of(trace_url=TRACE, studio_url=OWN_STUDIO)
    assert handle.trace_url == "https://smith.example.com/o/org/projects/p/mail/r/run-1?poll=true"
    assert handle.studio_url == (
        "https://studio.example.com/mail%20%2F%20agent?at=http%3A%2F%2Flocalhost%3A2024&thread=thread-1"
    )
    assert RunHandle.model_validate_json(handle.model_dump_json()) == handle


def test_result_and_error_lead_there_too() -> None:
    failure = RunFailure(error="ValueError", message="boo")
    result = RunResult(handle=handle_of(trace_url=TRACE), status=RunStatus.ERROR, error=failure)
    assert result.trace_url == result.handle.trace_url
    assert result.studio_url == STUDIO.format(url="http%3A%2F%2Flocalhost%3A2024", thread_id="thread-1")
    assert str(error_of(result)).endswith(f" Trace: {result.trace_url}")


def test_without_templates_there_is_langsmiths_studio_and_no_trace() -> None:
    result = RunResult(handle=handle_of(trace_url=" ", studio_url=""), status=RunStatus.ERROR)
    assert (result.trace_url, result.handle.studio_url) == (None, None)
    assert result.studio_url == (
        "https://smith.langchain.com/studio/?baseUrl=http%3A%2F%2Flocalhost%3A2024&threadId=thread-1"
    )
    assert "Trace" not in str(error_of(result))


def test_run_that_never_began_has_no_page() -> None:
    handle = RunHandle(run_id="", thread_id="", assistant_id="agent", url="http://localhost:2024")
    assert RunResult(handle=handle, status=RunStatus.CANCELLED).studio_url is None


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("https://smith.example.com/r/", "must have {run_id}"),
        ("https://smith.example.com/r/{thread_id}", "must have {run_id}"),
        ("https://smith.example.com/{run_id}/{project}", "no other field"),
        ("https://smith.example.com/{run_id.__class__}", "no other field"),
        ("https://smith.example.com/{run_id!r}", "no other field"),
        ("https://smith.example.com/{run_id:99}", "no other field"),
        ("https://smith.example.com/{}/{run_id}", "no other field"),
        ("https://smith.example.com/{run_id", "cannot be read"),
        ("ftp://smith.example.com/{run_id}", "http"),
        ("https:///{run_id}", "http"),
        ("https://{run_id}/", "http"),
        ("javascript:alert({run_id})", "percent-encoded"),
        ("https://smith.example.com/{run_id})![x](https://evil.example.com", "percent-encoded"),
        ("https://smith.example.com/{run_id} <b>", "percent-encoded"),
        ("https://me:hush@smith.example.com/{run_id}", "password"),
    ],
)
def test_template_that_is_no_page_of_a_run_is_refused(template: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_template(template, "run_id")
    with pytest.raises(ValueError, match=said) as refused:
        LangGraphCredentials(url="http://localhost:2024", trace_url=template)
    assert "hush" not in str(refused.value)


def test_blocks_with_different_pages_share_no_deployment() -> None:
    plain, traced, drawn = (
        LangGraphCredentials(url="http://localhost:2024", **fields).connection().fingerprint()
        for fields in ({}, {"trace_url": TRACE}, {"studio_url": OWN_STUDIO})
    )
    assert len({plain, traced, drawn}) == 3


def test_rows_of_one_fan_out_have_the_same_columns() -> None:
    traced = RunResult(handle=handle_of(trace_url=TRACE), status=RunStatus.SUCCESS, values={"a": 1})
    unborn = RunHandle(run_id="", thread_id="", assistant_id="agent", url="http://localhost:2024")
    results = (traced, RunResult(handle=unborn, status=RunStatus.CANCELLED))
    first, second = FanOutResult(results=results).to_rows()
    assert (first["trace_url"], second["trace_url"]) == (traced.trace_url, None)


def test_form_of_a_question_leads_to_the_studio_of_the_block() -> None:
    question = Question(
        title="pay", run_id="run-1", thread_id="thread-1", interrupt_id="i", assistant_id="mail"
    )
    studio = "https://studio.example.com/{assistant_id}/{thread_id}/{run_id}"
    page = page_of([question], url="http://localhost:2024", studio_url=studio)
    assert "](https://studio.example.com/mail/thread-1/run-1)" in page
