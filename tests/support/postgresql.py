"""PostgreSQL with a cluster of its own, for as long as tests last."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from prefect_langgraph.testing.process import HOST, ServerProcess
from support.waiting import PATIENCE

TESTS = Path(__file__).resolve().parents[1]


def binaries() -> Path:
    """The folder with PostgreSQL's programs, of which Debian puts none on the path."""
    places = [Path(found).resolve() for found in [shutil.which("initdb")] if found]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    if not places:
        pytest.fail("There is no initdb: install PostgreSQL, with `apt-get install postgresql`.")
    return places[0].parent


class Postgres(ServerProcess):
    """PostgreSQL. Made by `run_postgres`."""

    name = "PostgreSQL"

    def __init__(self, folder: Path) -> None:
        self._binaries = binaries()
        super().__init__(folder=folder, throw_away=False, port=None, startup_seconds=PATIENCE)

    @property
    def address(self) -> str:
        """The address without the name of a driver."""
        return f"prefect@{HOST}:{self.port}/postgres"

    def ask(self, query: str) -> str:
        """What the database itself says."""
        options = ["-h", HOST, "-p", str(self.port), "-U", "prefect", "-d", "postgres"]
        command = [str(self._binaries / "psql"), *options, "-Atc", query]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        return ran.stdout.strip()

    def _command(self) -> tuple[str, Sequence[str]]:
        return "support.run_postgres", [str(self._binaries), str(self._folder), str(self.port)]

    def _environment(self) -> Mapping[str, str]:
        return {**os.environ, "PYTHONPATH": str(TESTS)}

    def _ready(self, client: httpx.Client) -> bool:
        options = ["-h", HOST, "-p", str(self.port), "-q"]
        return subprocess.run([str(self._binaries / "pg_isready"), *options]).returncode == 0


@contextmanager
def run_postgres() -> Iterator[Postgres]:
    """Run PostgreSQL while the block runs."""
    # Not below pytest's folder: that is closed to everybody but who runs the tests.
    with tempfile.TemporaryDirectory(prefix="prefect-langgraph-postgres-") as folder:
        server = Postgres(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.close()
