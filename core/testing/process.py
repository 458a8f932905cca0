"""Servers as child processes that cannot outlive the process that started them.

Invariants:
- A child leads a session and process group of its own: Ctrl-C in a terminal reaches only us, and
  what the child started goes with it.
- However we end, the child ends. While we live we stop it; once we are gone, be it by SIGKILL, the
  pipe on its standard input is closed by the operating system and the child ends itself.
- A port we chose stays ours, also between a stop and the next start.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from prefect_langgraph.errors import LangGraphError

HOST = "127.0.0.1"

_PROBE_SECONDS = 0.05

_PORT_ATTEMPTS = 3

# Runs inside the child, before the server: argv is the folder to throw away (or ""), the module and
# its arguments. Nobody ever writes to the pipe, so a read ends only when our end of it is closed.
_LAUNCHER = """
import os, runpy, shutil, signal, sys, threading

scratch, module = sys.argv[1:3]

def end_with_the_parent():
    while os.read(0, 1):
        pass
    if scratch:
        shutil.rmtree(scratch, ignore_errors=True)
    if hasattr(os, "killpg"):
        os.killpg(os.getpgid(0), signal.SIGKILL)
    os._exit(1)

threading.Thread(target=end_with_the_parent, name="end-with-the-parent", daemon=True).start()
sys.argv[:] = [module, *sys.argv[3:]]
runpy.run_module(module, run_name="__main__")
"""


class ServerStartError(LangGraphError):
    """A server did not start. The message says why and holds the end of its log."""


def reserve_port(port: int | None = None) -> tuple[socket.socket, int]:
    """Take a TCP port on the loopback interface; it is free again when the socket is closed.

    Raises:
        ServerStartError: The port is taken.
    """
    reserved = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind((HOST, port or 0))
    except OSError as error:
        reserved.close()
        if error.errno != errno.EADDRINUSE:
            raise
        raise ServerStartError(
            f"Port {port} on {HOST} is taken. Leave port out to get a free one."
        ) from error
    return reserved, reserved.getsockname()[1]


class ServerProcess:
    """A server in a process of its own: started, asked whether it answers, and stopped.

    Subclasses say what to run and how to tell that it answers.
    """

    name = "server"

    def __init__(
        self,
        *,
        folder: Path,
        throw_away: bool,
        port: int | None,
        startup_seconds: float,
    ) -> None:
        if startup_seconds <= 0:
            raise ValueError(f"startup_seconds must be positive, not {startup_seconds}.")
        self._folder = folder
        self._throw_away = throw_away
        self._any_port = port is None
        self._startup_seconds = startup_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._reserved, self._port = reserve_port(port)

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1; the same after a restart."""
        return self._port

    @property
    def pid(self) -> int:
        """The id of the server's process, which also leads its process group."""
        if self._process is None:
            raise RuntimeError(f"The {self.name} is not running.")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def log_file(self) -> Path:
        """What the server printed, over all its restarts."""
        return self._folder / "server.log"

    def log_tail(self, lines: int = 40) -> str:
        """Give the last lines that the server printed."""
        if not self.log_file.exists():
            return ""
        text = self.log_file.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def start(self) -> None:
        """Start the server and wait until it answers. Does nothing when it is running.

        Raises:
            ServerStartError: It ended, or did not answer within startup_seconds.
        """
        if self.running:
            return
        self._let_go()
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            printed = self.log_file.stat().st_size if self.log_file.exists() else 0
            try:
                self._spawn()
                self._wait_until_ready(printed)
            except _PortTaken as taken:
                self.kill()
                if not self._any_port or attempt == _PORT_ATTEMPTS:
                    raise ServerStartError(
                        f"The {self.name} could not start: port {self.port} was taken by another "
                        f"process. Its log ends:\n{self.log_tail()}"
                    ) from taken
                self._reserved.close()
                self._reserved, self._port = reserve_port()
            except BaseException:
                self.kill()
                raise
            else:
                # Later starts keep the address that callers already hold.
                self._any_port = False
                return

    def stop(self, grace_seconds: float = 15) -> None:
        """Ask the server to end and wait; past the grace its process group is killed.

        A clean stop saves its state. Does nothing when it is not running.
        """
        if self.running and self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_seconds)
        self.kill()

    def kill(self) -> None:
        """Kill the server's process group at once, as a crash would; unsaved state is lost."""
        process = self._process
        if process is not None and process.poll() is None:
            if hasattr(os, "killpg"):
                # It leads its group, whose id stays taken until the process is waited for.
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.wait()
        self._let_go()

    def restart(self, *, kill: bool = False) -> None:
        """Stop the server and start it on the same port with the same state.

        Args:
            kill: Crash it instead of stopping it; what it had not saved is lost.
        """
        if kill:
            self.kill()
        else:
            self.stop()
        self.start()

    def close(self) -> None:
        """Stop the server for good and give back its port and its throw-away folder."""
        if self._throw_away:
            # Nobody will read the state, so there is nothing to wait for.
            self.kill()
            shutil.rmtree(self._folder, ignore_errors=True)
        else:
            self.stop()
        self._reserved.close()

    def _command(self) -> tuple[str, Sequence[str]]:
        """The module to run and its arguments."""
        raise NotImplementedError

    def _environment(self) -> Mapping[str, str]:
        raise NotImplementedError

    def _ready(self, client: httpx.Client) -> bool:
        """Whether the server answers, and is the one started here."""
        raise NotImplementedError

    def _spawn(self) -> None:
        if sys.platform != "linux":
            # Elsewhere a bound socket keeps the server itself from the port, so it cannot be held.
            self._reserved.close()
        module, arguments = self._command()
        scratch = str(self._folder) if self._throw_away else ""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-c", _LAUNCHER, scratch, module, *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env=dict(self._environment()),
                start_new_session=True,
            )

    def _wait_until_ready(self, printed: int) -> None:
        deadline = time.monotonic() + self._startup_seconds
        # The environment's proxies must not see, or lose, requests to the loopback interface.
        with httpx.Client(base_url=f"http://{HOST}:{self.port}", trust_env=False, timeout=5) as client:
            while True:
                if self._port_was_taken(printed):
                    raise _PortTaken
                if not self.running:
                    raise ServerStartError(
                        f"The {self.name} ended while it was starting. Its log ends:\n{self.log_tail()}"
                    )
                if self._answers(client):
                    return
                if time.monotonic() > deadline:
                    raise ServerStartError(
                        f"The {self.name} did not answer on port {self.port} within "
                        f"startup_seconds={self._startup_seconds:g}. "
                        f"Its log ends:\n{self.log_tail()}"
                    )
                time.sleep(_PROBE_SECONDS)

    def _answers(self, client: httpx.Client) -> bool:
        try:
            return self._ready(client)
        except httpx.TransportError:
            return False

    def _port_was_taken(self, printed: int) -> bool:
        with self.log_file.open("rb") as log:
            log.seek(printed)
            # Both servers and uvicorn say so in these words; `langgraph dev` then goes elsewhere.
            return b"already in use" in log.read()

    def _let_go(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None


class _PortTaken(Exception):
    """Somebody else bound the port between our choice and the server's start."""
