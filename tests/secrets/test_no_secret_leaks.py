"""Nothing that this package does leaves a secret where somebody may find it.

`play.py` uses every public task, flow, block and command with marked secrets, and fails in every way it
can, in a process of its own with Prefect's most talkative settings. Then everything that is left is
searched for the marks: Prefect's database (logs, events, artifacts, states, parameters, blocks),
results and other files on disk, standard output and standard error.
"""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import prefect_langgraph
from prefect_langgraph import LangGraphError
from prefect_langgraph.testing import PrefectServer, run_langgraph_server

HERE = Path(__file__).parent
AGENT = HERE.parents[1] / "examples" / "agent"
MARKS = ("key", "wrong_key", "block_header", "call_header", "secret_header", "input", "password")
# Those that are only bases.
BASES = {"LangGraphError", "RunError", "DeploymentError"}

GUARD = """
from langgraph_sdk import Auth

auth = Auth()


@auth.authenticate
async def authenticate(headers: dict) -> str:
    if headers.get(b"x-api-key") != b"{key}":
        raise Auth.exceptions.HTTPException(status_code=401, detail="no")
    return "ada"
"""


@dataclass(frozen=True)
class Played:
    """What was played, and what it left behind, by place."""

    report: dict[str, Any]
    marks: dict[str, str]
    beacon: str
    left: dict[str, bytes]

    def places_with(self, text: str) -> list[str]:
        """Where a text is found, as it is or within base64, as Prefect keeps pickled results."""
        forms = forms_of(text)
        return [place for place, content in self.left.items() if any(form in content for form in forms)]


def forms_of(text: str) -> list[bytes]:
    """The bytes of a text, and what base64 makes of its inside at each of three alignments."""
    raw = text.encode()
    encoded = [base64.b64encode(b"\0" * shift + raw)[4:-4] for shift in range(3)]
    return [raw, *encoded]


def unfolded(content: bytes) -> bytes:
    """Without line breaks, which base64 has within, also those that JSON has written out."""
    return content.replace(b"\\n", b"").replace(b"\n", b"")


def dump(database: Path) -> Iterator[tuple[str, bytes]]:
    """Every table of a database, as SQL."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        tables = connection.execute("select name from sqlite_master where type = 'table'").fetchall()
        for (table,) in tables:
            rows = connection.execute(f'select * from "{table}"').fetchall()  # noqa: S608
            yield f"database: {table}", repr(rows).encode()
    finally:
        connection.close()


def wait_for(beacon: str, database: Path, tables: set[str]) -> None:
    """Prefect writes logs and events behind the flow runs."""
    end = time.monotonic() + 60
    while True:
        found = {
            name.removeprefix("database: ") for name, rows in dump(database) if beacon.encode() in rows
        }
        if tables <= found:
            return
        assert time.monotonic() < end, f"the beacon is only in {found}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def played(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Played:
    folder = tmp_path_factory.mktemp("secrets")
    results = folder / "left"
    results.mkdir()
    marks = {name: f"zq{name.replace('_', '')}{uuid.uuid4().hex}" for name in MARKS}
    beacon = f"beacon{uuid.uuid4().hex}"
    agent = folder / "agent"
    agent.mkdir()
    (agent / "auth.py").write_text(GUARD.replace("{key}", marks["key"]), encoding="utf-8")
    graphs = {"worker": f"{AGENT / 'worker.py'}:worker"}
    config = {"dependencies": ["."], "graphs": graphs, "auth": {"path": "./auth.py:auth"}}
    (agent / "langgraph.json").write_text(json.dumps(config), encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": str(HERE.parent),
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "httpx,httpcore,langgraph_sdk,asyncio",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
        "PREFECT_LOCAL_STORAGE_PATH": str(results / "storage"),
        "PREFECT_HOME": str(results / "home"),
    }
    with run_langgraph_server(
        agent / "langgraph.json", jobs=20, env={"BG_JOB_TIMEOUT_SECS": "8"}
    ) as server:
        told = {"url": server.url, "marks": marks, "beacon": beacon, "folder": str(results)}
        done = subprocess.run(
            [sys.executable, str(HERE / "play.py")],
            input=json.dumps(told).encode(),
            env=environment,
            capture_output=True,
            timeout=280,
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    database = prefect_server.home / "prefect.db"
    wait_for(beacon, database, {"database: log"})
    left = dict(dump(database))
    left |= {str(file): file.read_bytes() for file in results.rglob("*") if file.is_file()}
    left |= {"standard output": done.stdout, "standard error": done.stderr}
    left |= {"server's log": prefect_server.log_file.read_bytes()}
    report = json.loads(done.stdout.splitlines()[-1])
    return Played(report, marks, beacon, {place: unfolded(content) for place, content in left.items()})


@pytest.mark.parametrize("mark", MARKS)
def test_secret_is_found_nowhere(mark: str, played: Played) -> None:
    assert played.places_with(played.marks[mark]) == []


def test_search_finds_what_is_there(played: Played) -> None:
    places = played.places_with(played.beacon)
    assert "database: log" in places
    assert "standard error" in places
    assert any("storage" in place for place in places)
    assert "database: events" in played.left
    assert "database: artifact" in played.left
    assert played.left["database: artifact"] != b"[]"


def test_everything_public_was_played(played: Played) -> None:
    assert played.report["without scenario"] == []
    assert played.report["commands without scenario"] == []


def test_every_error_came_up(played: Played) -> None:
    errors = {
        name
        for name in prefect_langgraph.__all__
        if isinstance(getattr(prefect_langgraph, name), type)
        and issubclass(getattr(prefect_langgraph, name), LangGraphError)
    }
    assert errors - BASES - set(played.report["raised"]) == set()


@pytest.mark.parametrize("wrap", [bytes, base64.b64encode, base64.encodebytes])
def test_search_sees_through_base64(wrap: Callable[[bytes], bytes]) -> None:
    text = f"zq{uuid.uuid4().hex}"
    for shift in range(3):
        hidden = wrap(b"x" * shift + b"some words before" + text.encode() + b" and after")
        seen = Played({}, {}, "", {"here": unfolded(hidden)})
        assert seen.places_with(text) == ["here"]
