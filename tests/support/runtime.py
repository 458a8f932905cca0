"""The LangGraph server that tests run on: the development server, or the Postgres and Redis runtime.

`pytest --runtime postgres` takes the second, which `make test-postgres` sets up in an environment
of its own. Tests that ask for `run_agent_server` run on both.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest

from prefect_langgraph.testing import LangGraphServer, run_langgraph_server
from prefect_langgraph.testing.process import HOST, ServerProcess
from support.postgresql import TESTS, Postgres, run_postgres
from support.waiting import PATIENCE

INMEM, POSTGRES = RUNTIMES = ("inmem", "postgres")

PROGRAMS = "POSTGRES_RUNTIME_BIN"
"""The environment variable with the folder of `langhost`, the runtime's command line."""


class Redis(ServerProcess):
    """Redis, which forgets everything at its end."""

    name = "Redis"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder=folder, throw_away=True, port=None, startup_seconds=PATIENCE)

    def _command(self) -> tuple[str, Sequence[str]]:
        program = shutil.which("redis-server")
        if program is None:
            pytest.fail("There is no redis-server: install it, with `apt-get install redis-server`.")
        options = ["--bind", HOST, "--port", str(self.port), "--save", "", "--appendonly", "no"]
        return "support.run_program", [program, *options]

    def _environment(self) -> Mapping[str, str]:
        return {**os.environ, "PYTHONPATH": str(TESTS)}

    def _ready(self, client: httpx.Client) -> bool:
        return "Ready to accept connections" in self.log_tail()


class PostgresRuntime(LangGraphServer):
    """The runtime in front of a PostgreSQL and a Redis of its own."""

    name = "Postgres runtime"

    def __init__(
        self,
        config: Path,
        postgres: Postgres,
        redis: Redis,
        *,
        folder: Path,
        jobs: int,
        env: Mapping[str, str],
    ) -> None:
        self._postgres, self._redis = postgres, redis
        super().__init__(
            config,
            jobs=jobs,
            state_dir=folder,
            throw_away=False,
            env=env,
            startup_seconds=PATIENCE,
            port=None,
        )

    def _command(self) -> tuple[str, Sequence[str]]:
        programs = os.environ.get(PROGRAMS)
        if not programs:
            pytest.fail(f"{PROGRAMS} is not set: run `make test-postgres`.")
        options = {
            "--config": str(self._config),
            "--port": str(self.port),
            "--database-uri": f"postgresql://{self._postgres.address}",
            "--redis-uri": f"redis://{HOST}:{self._redis.port}",
            "--n-jobs-per-worker": str(self._jobs),
        }
        flat = [word for option in options.items() for word in option]
        langhost = str(Path(programs) / "langhost")
        return "support.run_program", [langhost, "serve", "--no-browser", *flat]

    def _environment(self) -> Mapping[str, str]:
        path = os.pathsep.join([os.environ[PROGRAMS], os.environ.get("PATH", "")])
        return {**super()._environment(), "PYTHONPATH": str(TESTS), "PATH": path}

    def _ready(self, client: httpx.Client) -> bool:
        return client.get("/ok").status_code == httpx.codes.OK


@contextmanager
def _run_postgres_runtime(config: Path, jobs: int, env: Mapping[str, str]) -> Iterator[LangGraphServer]:
    with run_postgres() as postgres, tempfile.TemporaryDirectory() as folder:
        redis = Redis(Path(tempfile.mkdtemp(dir=folder)))
        state = Path(tempfile.mkdtemp(dir=folder))
        server = PostgresRuntime(config, postgres, redis, folder=state, jobs=jobs, env=env)
        try:
            redis.start()
            server.start()
            yield server
        finally:
            server.close()
            redis.close()


def chosen() -> str:
    """The runtime of this session, as `pytest --runtime` says."""
    return os.environ.get("TEST_RUNTIME", INMEM)


def run_agent_server(
    config: Path, *, jobs: int = 10, env: Mapping[str, str] | None = None
) -> AbstractContextManager[LangGraphServer]:
    """Run the server of this session's runtime while the block runs."""
    if chosen() == INMEM:
        return run_langgraph_server(config, jobs=jobs, env=env)
    return _run_postgres_runtime(config, jobs, env or {})
