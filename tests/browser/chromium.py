"""Debian's Chromium, without a screen, driven over its DevTools protocol.

The protocol needs only a web socket, which Prefect brings; a browser test kit would bring a driver of
its own, or a browser.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from support.waiting import PATIENCE

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless",
    # Without a graphics card. Prefect draws the graph of a flow run by WebGL.
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--remote-debugging-port=0",
    # The sandbox refuses to work for root and in most containers; the pages are our own.
    "--no-sandbox",
    # It must not try to reach anything but the page.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
)
_PROBE_SECONDS = 0.1


class BrowserError(Exception):
    """There is no browser, or a page did not become what was waited for."""


class Page:
    """One tab."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._last = 0
        self._prepared: str | None = None
        self.call("Page.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the DevTools protocol."""
        self._last += 1
        self._connection.send(json.dumps({"id": self._last, "method": method, "params": params}))
        while True:
            answer = json.loads(self._connection.recv(timeout=PATIENCE))
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def prefer(self, theme: str, stored: Mapping[str, str]) -> None:
        """Be a reader who prefers a light or a dark theme, with these entries in the local storage."""
        self.call(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}]
        )
        if self._prepared is not None:
            self.call("Page.removeScriptToEvaluateOnNewDocument", identifier=self._prepared)
        entries = json.dumps(dict(stored))
        answer = self.call(
            "Page.addScriptToEvaluateOnNewDocument", source=f"Object.assign(localStorage, {entries})"
        )
        self._prepared = answer["identifier"]

    def open(self, url: str) -> None:
        """Load a page. What its scripts fetch may come later."""
        # Between two pages of one site nothing tells the old page from the new.
        self.call("Page.navigate", url="about:blank")
        self.wait_for("location.href == 'about:blank'")
        self.call("Page.navigate", url=url)
        self.wait_for("location.href != 'about:blank' && document.readyState == 'complete'")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise BrowserError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Ask until the expression is true, and return its value."""
        deadline = time.monotonic() + PATIENCE
        while not (value := self.evaluate(expression)):
            if time.monotonic() > deadline:
                raise BrowserError(f"Still not so after {PATIENCE:g} s: {expression}\n{self.text()}")
            time.sleep(_PROBE_SECONDS)
        return value

    def text(self) -> str:
        """What a reader of the page sees."""
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    def size(self, width: int, height: int) -> None:
        """Give the window a size."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def screenshot(self, file: Path, *, of: str | None = None) -> None:
        """Keep what the window shows, or one element of it, which a JavaScript expression gives."""
        # Two frames: the first may still show what was before the last change.
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        clip: dict[str, Any] = {}
        if of is not None:
            keys = "({x: box.x, y: box.y, width: box.width, height: box.height, scale: 1})"
            clip["clip"] = self.evaluate(f"(box => {keys})({of}.getBoundingClientRect())")
        picture = self.call("Page.captureScreenshot", format="png", **clip)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(picture["data"]))


def find_chromium() -> str:
    """The browser's program.

    Raises:
        BrowserError: It is not installed; the message says how to install it.
    """
    for name in NAMES:
        if (program := shutil.which(name)) is not None:
            return program
    raise BrowserError(
        f"The tests in tests/browser need a browser, and there is none ({', '.join(NAMES)}). "
        "Install it with: make system (or apt-get install chromium)"
    )


@contextmanager
def run_chromium() -> Iterator[Page]:
    """Run the browser, with a profile of its own, while the block runs."""
    program = find_chromium()
    with tempfile.TemporaryDirectory(prefix="prefect-langgraph-", ignore_cleanup_errors=True) as home:
        profile, log = Path(home, "profile"), Path(home, "log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [program, *OPTIONS, f"--user-data-dir={profile}", "about:blank"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            port = _port_of(process, profile, log)
            pages = httpx.get(f"http://127.0.0.1:{port}/json/list", trust_env=False).json()
            address = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
            with connect(address, max_size=None, proxy=None) as connection:
                yield Page(connection)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _port_of(process: subprocess.Popen[bytes], profile: Path, log: Path) -> int:
    """The port that the browser chose and wrote down."""
    written = profile / "DevToolsActivePort"
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if written.exists() and (text := written.read_text().strip()):
            return int(text.splitlines()[0])
        time.sleep(_PROBE_SECONDS)
    raise BrowserError(f"{process.args!r} did not start:\n{log.read_text(errors='replace')[-2000:]}")
