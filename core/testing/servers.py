"""The real servers, as context managers: LangGraph's development server, and Prefect's."""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from prefect_langgraph.testing.process import HOST, ServerProcess, ServerStartError

__all__ = [
    "LangGraphServer",
    "PrefectServer",
    "ServerStartError",
    "run_langgraph_server",
    "run_prefect_server",
]

# With the keys and tracing of whoever runs the tests, the server would send its runs to LangSmith.
# MOUNT_PREFIX would move its routes.
_STRIPPED = ("LANGSMITH_", "LANGCHAIN_", "LANGGRAPH_", "LANGSERVE_", "OTEL_", "MOUNT_PREFIX")

_QUIET = {
    "LANGGRAPH_CLI_NO_ANALYTICS": "1",
    "LANGGRAPH_NO_VERSION_CHECK": "true",
    "LANGSMITH_TRACING": "false",
    "LOG_COLOR": "false",
    "PYTHONUNBUFFERED": "1",
}


# On a busy machine SQLite takes longer than Prefect's 5 and 10 s, and answers are 503 then. Under their
# second names, so that whoever gives the first has their will.
_PATIENT_DATABASE = {
    "PREFECT_API_DATABASE_TIMEOUT": "120",
    "PREFECT_API_DATABASE_CONNECTION_TIMEOUT": "120",
}

STARTUP_SECONDS = 300.0
"""A few seconds suffice on an idle machine; one with much else to do takes minutes."""

# One setting under two names, of which Prefect prefers the first.
_DATABASE_NAMES = {"PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL"}


class LangGraphServer(ServerProcess):
    """A running LangGraph development server. Made by `run_langgraph_server`.

    Attributes:
        state_dir: The folder with its state, its log and the configuration it was started with.
    """

    name = "LangGraph server"

    def __init__(
        self,
        config: Path,
        *,
        jobs: int,
        state_dir: Path,
        throw_away: bool,
        env: Mapping[str, str],
        startup_seconds: float,
        port: int | None,
    ) -> None:
        if jobs < 1:
            raise ValueError(f"jobs must be at least 1, not {jobs}.")
        settings = _absolute(config)
        given = settings.pop("env")
        self._env = {**_without_tracing({**os.environ, **given}), **_QUIET, **env}
        self._prefix = str((settings.get("http") or {}).get("mount_prefix") or "").rstrip("/")
        self._jobs = jobs
        self._token = ""
        self.state_dir = state_dir
        state_dir.mkdir(parents=True, exist_ok=True)
        self._config = state_dir / "langgraph.json"
        self._config.write_text(json.dumps(settings, indent=2), encoding="utf-8")
        super().__init__(
            folder=state_dir, throw_away=throw_away, port=port, startup_seconds=startup_seconds
        )

    @property
    def url(self) -> str:
        """Its address, as in `LangGraphCredentials(url=server.url)`."""
        return f"http://{HOST}:{self.port}{self._prefix}"

    def _command(self) -> tuple[str, Sequence[str]]:
        options = {
            "--config": str(self._config),
            "--host": HOST,
            "--port": str(self.port),
            "--n-jobs-per-worker": str(self._jobs),
        }
        flat = [word for option in options.items() for word in option]
        return "langgraph_cli", ["dev", "--no-browser", "--no-reload", *flat]

    def _environment(self) -> Mapping[str, str]:
        # Shown by /info: tells this server from a stranger that took the port.
        self._token = uuid.uuid4().hex
        return {**self._env, "LANGSMITH_HOST_REVISION_ID": self._token}

    def _ready(self, client: httpx.Client) -> bool:
        if client.get(f"{self._prefix}/ok").status_code != httpx.codes.OK:
            return False
        info = client.get(f"{self._prefix}/info")
        # A configuration may turn /info off or put it behind its authentication.
        return not info.is_success or info.json()["host"]["host_revision_id"] == self._token


class PrefectServer(ServerProcess):
    """A running Prefect server. Made by `run_prefect_server`.

    Attributes:
        home: Its PREFECT_HOME, with its database and its log.
    """

    name = "Prefect server"

    def __init__(
        self,
        *,
        home: Path,
        throw_away: bool,
        env: Mapping[str, str],
        startup_seconds: float,
        port: int | None,
        ui: bool,
    ) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self._ui = ui
        # Settings of the person who runs the tests may point at their own database.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        self._env = {
            **inherited,
            "DO_NOT_TRACK": "1",
            "PREFECT_HOME": str(home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            **_PATIENT_DATABASE,
            **({} if _DATABASE_NAMES & env.keys() else _own_database(home)),
            **env,
        }
        super().__init__(folder=home, throw_away=throw_away, port=port, startup_seconds=startup_seconds)

    @property
    def api_url(self) -> str:
        """The address to set as PREFECT_API_URL."""
        return f"http://{HOST}:{self.port}/api"

    def _command(self) -> tuple[str, Sequence[str]]:
        ui = "--ui" if self._ui else "--no-ui"
        return "prefect", ["server", "start", "--host", HOST, "--port", str(self.port), ui]

    def _environment(self) -> Mapping[str, str]:
        return {**self._env, "PREFECT_API_URL": self.api_url}

    def _ready(self, client: httpx.Client) -> bool:
        return client.get("/api/health").status_code == httpx.codes.OK


@contextmanager
def run_langgraph_server(
    config: str | Path = "langgraph.json",
    *,
    jobs: int = 10,
    state_dir: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    startup_seconds: float = STARTUP_SECONDS,
    port: int | None = None,
) -> Iterator[LangGraphServer]:
    """Run LangGraph's development server while the block runs.

    The server gets the environment of this process and what `env` of the `langgraph.json` says,
    except LANGSMITH_*, LANGCHAIN_*, LANGGRAPH_* and OTEL_* variables, which would make it send its
    runs away. Its working directory is `state_dir`, so graphs should not read files by a relative
    path.

    Args:
        config: A `langgraph.json`. Its paths are relative to its own folder.
        jobs: How many runs the server works on at once.
        state_dir: Where its state is kept, for a server that is to remember. None is a new
            temporary folder that is deleted at the end.
        env: More environment for the server, such as {"CRON_SCHEDULER_SLEEP_TIME": "1"}. Nothing
            is removed from it.
        startup_seconds: How long the server may take until it answers. One that ends is not waited for.
        port: None is a free one.

    Yields:
        The running server: `url`, `pid`, `stop()`, `kill()`, `restart()`, `log_tail()`.

    Raises:
        ServerStartError: It did not start, or what it needs is not installed.
        FileNotFoundError: There is no such configuration.

    Example:
        >>> with run_langgraph_server("examples/agent/langgraph.json") as server:
        ...     httpx.get(f"{server.url}/ok").json()["ok"]
        True
    """
    _require_langgraph_cli()
    with _folder(state_dir) as (folder, throw_away):
        server = LangGraphServer(
            Path(config),
            jobs=jobs,
            state_dir=folder,
            throw_away=throw_away,
            env=env or {},
            startup_seconds=startup_seconds,
            port=port,
        )
        with _running(server):
            yield server


@contextmanager
def run_prefect_server(
    *,
    home: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    startup_seconds: float = STARTUP_SECONDS,
    port: int | None = None,
    ui: bool = False,
) -> Iterator[PrefectServer]:
    """Run a Prefect server while the block runs.

    Prefect settings of this process are neither used nor changed: point flows at the server with
    `prefect.settings.temporary_settings`, and other processes with the PREFECT_API_URL variable.

    Args:
        home: Its PREFECT_HOME, for a server that is to remember. None is a new temporary folder
            that is deleted at the end.
        env: More environment for the server, such as {"PREFECT_API_DATABASE_CONNECTION_URL":
            "postgresql+asyncpg://..."} in place of a SQLite file in its home.
        startup_seconds: How long the server may take until it answers. One that ends is not waited for.
        port: None is a free one.
        ui: Serve Prefect's pages too.

    Yields:
        The running server: `api_url`, `pid`, `stop()`, `kill()`, `restart()`, `log_tail()`.

    Raises:
        ServerStartError: It did not start.

    Example:
        >>> from prefect.settings import PREFECT_API_URL, temporary_settings
        >>> with run_prefect_server() as server:
        ...     with temporary_settings({PREFECT_API_URL: server.api_url}):
        ...         httpx.get(f"{PREFECT_API_URL.value()}/health").json()
        True
    """
    with _folder(home) as (folder, throw_away):
        server = PrefectServer(
            home=folder,
            throw_away=throw_away,
            env=env or {},
            startup_seconds=startup_seconds,
            port=port,
            ui=ui,
        )
        with _running(server):
            yield server


@contextmanager
def _running(server: ServerProcess) -> Iterator[None]:
    try:
        server.start()
        yield
    finally:
        server.close()


@contextmanager
def _folder(chosen: str | Path | None) -> Iterator[tuple[Path, bool]]:
    if chosen is not None:
        yield Path(chosen).resolve(), False
        return
    with tempfile.TemporaryDirectory(prefix="prefect-langgraph-", ignore_cleanup_errors=True) as new:
        yield Path(new).resolve(), True


def _own_database(home: Path) -> dict[str, str]:
    return {"PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.db'}"}


def _require_langgraph_cli() -> None:
    missing = [m for m in ("langgraph_cli", "langgraph_api") if not importlib.util.find_spec(m)]
    if missing:
        raise ServerStartError(
            f"The LangGraph development server is not installed (no {' and no '.join(missing)}). "
            'Install it with: pip install "prefect-langgraph[testing]"'
        )


def _without_tracing(environment: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in environment.items() if not k.startswith(_STRIPPED)}


def _absolute(config: Path) -> dict[str, Any]:
    """Read a `langgraph.json` so that it means the same from any working directory."""
    config = config.resolve()
    root = config.parent
    settings: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))

    def path(value: str) -> str:
        file, colon, variable = value.rpartition(":")
        # Without a slash it is a module, which is found through sys.path.
        return f"{root / file}{colon}{variable}" if "/" in file else value

    graphs = settings.get("graphs") or {}
    for name, graph in graphs.items():
        graphs[name] = (
            {**graph, "path": path(graph["path"])} if isinstance(graph, dict) else path(graph)
        )
    for section, key in (
        ("auth", "path"),
        ("encryption", "path"),
        ("checkpointer", "path"),
        ("http", "app"),
    ):
        if (settings.get(section) or {}).get(key):
            settings[section][key] = path(settings[section][key])
    index = (settings.get("store") or {}).get("index") or {}
    if isinstance(index.get("embed"), str):
        index["embed"] = path(index["embed"])
    local = [str(root / d) if d.startswith(".") else d for d in settings.get("dependencies") or []]
    # The CLI makes its working directory importable, which for users is the configuration's folder.
    settings["dependencies"] = [*local, str(root)]
    settings["env"] = _read_env(settings.get("env"), root)
    return settings


def _read_env(env: str | Mapping[str, str] | None, root: Path) -> dict[str, str]:
    if not isinstance(env, str):
        return {name: str(value) for name, value in (env or {}).items()}
    from dotenv import dotenv_values

    return {k: v for k, v in dotenv_values(root / env).items() if v is not None}
