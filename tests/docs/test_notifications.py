"""The automations of the page on notifications send what they promise, to a webhook of the test."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from prefect import flow
from prefect.automations import Automation
from prefect.blocks.notifications import CustomWebhookNotificationBlock

from docs.test_markdown import ROOT, blocks_of
from prefect_langgraph import FanOutError, fan_out
from support.waiting import until

PAGE = ROOT / "docs" / "how-to" / "notify.md"


@contextmanager
def webhook() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """An address, and what was sent to it so far."""
    sent: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/", sent
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.usefixtures("reader")
def test_automations_send_the_reasons_of_what_failed() -> None:
    with webhook() as (address, sent):
        team = CustomWebhookNotificationBlock(
            name="team",
            url=address,
            allow_private_urls=True,
            json_data={"subject": "{{subject}}", "body": "{{body}}"},
        ).save("team", overwrite=True)
        shown = [block.code for block in blocks_of(PAGE) if "Automation(" in block.code]
        made: dict[str, Any] = {"team": team}
        for code in shown:
            exec(code, made)  # noqa: S102 - our own documentation
        try:

            @flow
            def nightly() -> None:
                fan_out("worker", [{"tag": "a"}, {"fail": "no luck"}])

            with pytest.raises(FanOutError):
                nightly()
            until(lambda: len(sent) == 2)
        finally:
            for automation in made.values():
                if isinstance(automation, Automation):
                    automation.delete()
    by_subject = {each["subject"]: each["body"] for each in sent}
    assert "{'error': 1, 'success': 1} of 2 runs" in by_subject["fan-out-worker: partial"]
    (other,) = [body for subject, body in by_subject.items() if subject.endswith(" is Failed")]
    assert "1x RuntimeError: no luck" in other
    assert "/runs/flow-run/" in other
