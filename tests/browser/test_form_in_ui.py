"""What a person does when an agent asks: open the flow run, press Resume, choose, type, submit."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from browser.chromium import Page
from prefect_langgraph.testing import LangGraphServer, PrefectServer
from support.waiting import PATIENCE, until

OUTPUT = Path(__file__).resolve().parents[2] / "output" / "browser"
FORM = "(document.querySelector('[role=dialog]') || document.querySelector('.p-modal'))"
TEXTS = f"[...{FORM}.querySelectorAll('textarea')]"

# The new UI has menus that open when the pointer goes down, and close when a choice is made.
PRESS = "new PointerEvent('pointerdown', {bubbles: true, button: 0, pointerType: 'mouse'})"


class Asking:
    """A flow run that asks, in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], server: PrefectServer) -> None:
        assert process.stdout is not None
        self._process = process
        self._server = server
        self.id = process.stdout.readline().strip()
        until(lambda: self.state() == "Paused")

    def state(self) -> str:
        row = httpx.get(f"{self._server.api_url}/flow_runs/{self.id}").raise_for_status().json()
        return str(row["state_name"])

    def said(self) -> list[str]:
        """What the agents said in the end."""
        assert self._process.stdout is not None
        said: list[str] = ast.literal_eval(self._process.stdout.readline())
        assert self._process.wait(PATIENCE) == 0
        return said


@contextmanager
def asking_run(langgraph: LangGraphServer, prefect: PrefectServer) -> Iterator[Asking]:
    command = [sys.executable, str(Path(__file__).with_name("asking_run.py")), langgraph.url]
    environment = {**os.environ, "PREFECT_API_URL": prefect.api_url}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield Asking(process, prefect)
        finally:
            process.kill()


def open_form(page: Page, server: PrefectServer, run: Asking, pages: str) -> None:
    """Go to the flow run and press Resume."""
    page.size(1400, 1500)
    page.prefer("light", {"theme": "light", "color-scheme": '"light"'})
    base = server.api_url.removesuffix("/api")
    page.open(f"{base}{'/v2' if pages == 'v2' else ''}/runs/flow-run/{run.id}")
    if pages == "v1":
        button = "[...document.querySelectorAll('button')].find(b => b.innerText.trim() == 'Resume')"
        page.wait_for(f"!!({button})")
        page.evaluate(f"{button}.click()")
    else:
        menu = "[...document.querySelectorAll('button[aria-haspopup=menu]')].pop()"
        item = "[...document.querySelectorAll('[role=menuitem]')].find(i => i.innerText == 'Resume')"
        page.wait_for(f"document.body.innerText.includes('Paused') && !!({menu})")
        page.wait_for(f"!!({item} || ({menu}.dispatchEvent({PRESS}), {item}))")
        page.evaluate(f"{item}.click()")
    page.wait_for(f"!!{FORM} && {FORM}.innerText.includes('Your name')")


def choose(page: Page, pages: str, place: int, choice: str) -> None:
    """Take a choice in the form's n-th list."""
    if pages == "v1":
        lists = f"[...{FORM}.querySelectorAll('select')].filter(s => s.options.length > 1)"
        page.evaluate(
            f"(() => {{ const list = {lists}[{place}];"
            f" list.value = [...list.options].find(o => o.innerText == {choice!r}).value;"
            " list.dispatchEvent(new Event('change', {bubbles: true})); })()"
        )
        return
    lists = f"[...{FORM}.querySelectorAll('button')].filter(b => b.innerText.trim() == 'Select')"
    option = f"[...document.querySelectorAll('[role=option]')].find(o => o.innerText == {choice!r})"
    page.evaluate(f"{lists}[0].dispatchEvent({PRESS}); {lists}[0].click()")
    page.wait_for(f"!!({option})")
    page.evaluate(f"{option}.click()")
    page.wait_for(f"!{option}")


def type_in(page: Page, place: int, text: str) -> None:
    """Type into the form's n-th text, in place of what stands there."""
    page.evaluate(f"{TEXTS}[{place}].focus(); {TEXTS}[{place}].select()")
    page.call("Input.insertText", text=text)


@pytest.mark.parametrize("pages", ["v1", "v2"])
def test_question_is_answered_by_choosing_and_typing(
    page: Page, prefect_pages: PrefectServer, langgraph_server: LangGraphServer, pages: str
) -> None:
    with asking_run(langgraph_server, prefect_pages) as run:
        open_form(page, prefect_pages, run, pages)
        page.screenshot(OUTPUT / f"asking-{pages}.png", of=FORM)
        text = str(page.evaluate(f"{FORM}.innerText"))
        for said in ("1. refunds asks: refund", '"order": "A-7"', "May I refund this order?"):
            assert said in text
        assert page.evaluate(f"{TEXTS}[0].value") == '{"order": "A-7", "amount": 12}'
        choose(page, pages, 0, "edit")
        type_in(page, 0, '{"order": "A-7", "amount": 11}')
        choose(page, pages, 1, "reject")
        type_in(page, 3, "too much")
        type_in(page, 4, "Ada")
        page.screenshot(OUTPUT / f"answered-{pages}.png")
        word = "Submit" if pages == "v1" else "Resume"
        buttons = f"[...{FORM}.querySelectorAll('button')]"
        page.evaluate(f"{buttons}.find(b => b.innerText.trim() == '{word}').click()")
        assert run.said() == ["refunded 11 of A-7", "not refunded: too much"]
