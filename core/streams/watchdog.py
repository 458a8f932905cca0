"""Cancels the runs of a process that was killed.

The server can cancel a run when the connection of its stream breaks, but it cannot tell a client that
was killed from a connection that was cut, and after a cut a stream is to go on. So a small child
process holds the other end of a pipe: when this process is gone, however it ended, the operating system
closes the pipe, and the child cancels what was still held.

Invariants:
- The child acts only after its parent ended, on runs that were held at that moment, and then ends.
- Secrets reach the child by the pipe: not by its arguments, nor its environment. Those that were
  rotated since it reads from the saved block.
- Used on the shared loop only, so it needs no lock.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import orjson

from prefect_langgraph.logs import run_logger
from prefect_langgraph.models import RunHandle
from prefect_langgraph.transport.connection import Connection

# Runs in the child. It ignores signals: a Ctrl-C or a kill that is meant for its parent's group must
# not end it first.
_CHILD = """
import json, signal, sys, time
for name in ("SIGINT", "SIGTERM", "SIGHUP"):
    if hasattr(signal, name):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
held, path = {}, []

def headers_now(block):
    import asyncio
    from prefect_langgraph.blocks.credentials import resolve
    return asyncio.run(resolve(block)).headers_with_token()

for line in sys.stdin.buffer:
    message = json.loads(line)
    if "path" in message:
        path = message["path"]
    elif "url" in message:
        held[message["run"]] = message
    else:
        held.pop(message["run"], None)
if held:
    sys.path[:] = path
    import httpx
    end = time.monotonic() + 60
    with httpx.Client(timeout=10) as client:
        while held and time.monotonic() < end:
            for run, message in list(held.items()):
                try:
                    answer = client.post(message["url"], headers=message["headers"])
                except httpx.TransportError:
                    continue
                if answer.status_code in (401, 403) and message["block"]:
                    # Its key may have been rotated since.
                    try:
                        message["headers"] = headers_now(message["block"])
                    except Exception:
                        pass  # tried again in a second
                elif answer.status_code != 429 and answer.status_code < 500:
                    del held[run]
            if held:
                time.sleep(1)
"""


class _Child(subprocess.Popen[bytes]):
    def __del__(self, *args: Any, **kwargs: Any) -> None:
        """Say nothing of a child that still runs: it ends by itself, after this process."""


class Watchdog:
    """Holds runs that must not outlive this process."""

    def __init__(self) -> None:
        self._held: dict[str, bytes] = {}
        self._child: _Child | None = None
        self._pipe: int | None = None
        self._failed = False

    def begin(self) -> None:
        """Start the child, unless it runs."""
        if self._failed or (self._child is not None and self._child.poll() is None):
            return
        self.close()
        read_end, write_end = os.pipe()
        try:
            self._child = _Child(
                [sys.executable, "-c", _CHILD],
                stdin=read_end,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            self._failed = True
            os.close(write_end)
            run_logger().warning(
                "No process could be started to watch over this one (%s): if this one is killed, "
                "runs of its streams go on.",
                type(error).__name__,
            )
            return
        finally:
            os.close(read_end)
        self._pipe = write_end
        self._write(orjson.dumps({"path": [part or os.getcwd() for part in sys.path]}))
        for message in self._held.values():
            self._write(message)

    def hold(self, connection: Connection, handle: RunHandle) -> None:
        """Cancel this run when this process is gone."""
        self.begin()
        message = orjson.dumps(
            {
                "run": handle.run_id,
                "url": f"{handle.url}/threads/{handle.thread_id}/runs/{handle.run_id}/cancel",
                "headers": connection.headers_with_token(fetch=False),
                "block": connection.name,
            }
        )
        self._held[handle.run_id] = message
        self._write(message)

    def release(self, handle: RunHandle) -> None:
        """Leave this run alone, whatever happens."""
        if self._held.pop(handle.run_id, None) is not None:
            self._write(orjson.dumps({"run": handle.run_id}))

    def close(self) -> None:
        """Close the pipe, by which a child that runs ends."""
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None

    def _write(self, message: bytes) -> None:
        if self._pipe is None:
            return
        try:
            os.write(self._pipe, message + b"\n")
        except BrokenPipeError:
            # Somebody ended the child; the next run gets a new one, with all that is held.
            self.close()


_watchdog = Watchdog()


def watchdog() -> Watchdog:
    """This process's."""
    return _watchdog


def _after_fork_in_child() -> None:
    global _watchdog
    # The copy of the pipe would keep it open after the parent is gone.
    _watchdog.close()
    _watchdog = Watchdog()


os.register_at_fork(after_in_child=_after_fork_in_child)
