"""Nothing that this package does leaves a secret where somebody may find it.

`use_everything.py` uses every public name and every command with marked secrets, and fails in every way
it can, in a process of its own with talkative logs and kept results. Then everything that is left is
searched for the marks, as they are and within base64: Prefect's database (logs, events, artifacts,
states, parameters, blocks) by its tables and by its bytes, results and other files on disk, standard
output and standard error. In each place something harmless was planted, which the search must find.

Not searched: the LangGraph server, which holds what it was sent. Not secret: what a graph gives back or
raises, and what a user makes a parameter of a flow, which Prefect keeps as a parameter of its flow run;
there, and nowhere else, that mark is found.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

import prefect_langgraph
from prefect_langgraph import LangGraphError
from prefect_langgraph.testing import (
    LangGraphServer,
    PrefectServer,
    run_langgraph_server,
    run_prefect_server,
)
from support.waiting import PATIENCE

HERE = Path(__file__).parent
AGENT = HERE.parents[1] / "examples" / "agent"
MARKS = (
    "block_header",
    "call_header",
    "config",
    "input",
    "key",
    "metadata",
    "model",
    "password",
    "secret_header",
    "token",
    "state",
    "webhook",
    "wrong_key",
)
BEACONS = {
    "artifact": r"table artifact$",
    "event": r"table events$",
    "log": r"table log$",
    "parameter": r"table flow_run$",
    "result": r"results/",
    "state": r"table flow_run_state$",
    "stderr": r"standard error$",
    "stdout": r"standard output$",
}
# Those that are only bases of others.
BASES = {"LangGraphError", "RunError", "DeploymentError"}
# What is no use of this package: types that others hold.
PARTS = {
    "__version__",
    "RunStatus",
    "RunFailure",
    "RunItem",
    "ResumeEntry",
    "SweepEntry",
    "Usage",
    "FanOutUsage",
    "CronSpec",
    "Question",
    "Answer",
    "Budget",
    "Price",
}
# What asks a deployment nothing.
ALONE = {"HeaderPolicy", "LangGraphCredentials", "next_fires"}
# Failures that are only told of in the log.
HARMLESS = {"finalizer away", "policy that warns"}
# What never leaves, or goes to the deployment itself.
UNSENT = {"model", "password", "wrong_key"}

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
class Traces:
    """What was used, and what that left behind, by place."""

    report: dict[str, Any]
    marks: dict[str, str]
    beacons: dict[str, str]
    left: dict[str, bytes]

    def places_with(self, text: str) -> list[str]:
        """Where a text is found, as it is or within base64, as Prefect keeps pickled results."""
        forms = forms_of(text)
        return [place for place, content in self.left.items() if any(form in content for form in forms)]


def forms_of(text: str) -> list[bytes]:
    """The bytes of a text, and what base64 makes of its inside at each of three alignments.

    Marks are letters and digits, which stay as they are in URLs and in JSON, and are the same in the
    base64 of URLs.
    """
    raw = text.encode()
    return [raw, *(base64.b64encode(b"\0" * shift + raw)[4:-4] for shift in range(3))]


def unfolded(content: bytes) -> bytes:
    """Without line breaks, which base64 has within, also those that JSON or Python has written out."""
    return re.sub(rb"(\\+n|\n)", b"", content)


def tables(database: Path) -> Iterator[tuple[str, bytes]]:
    """Every table of a database, whose file may hold a long text in pieces."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        names = connection.execute("select name from sqlite_master where type = 'table'").fetchall()
        for (table,) in names:
            rows = connection.execute(f'select * from "{table}"').fetchall()  # noqa: S608
            yield f"table {table}", repr(rows).encode()
    finally:
        connection.close()


def wait_for_the_end(server: PrefectServer) -> None:
    """Wait until Prefect has written down what was sent last: logs and events come behind the runs."""
    wanted: dict[str, tuple[str, Any]] = {
        "log": ("/logs/filter", {"sort": "TIMESTAMP_DESC", "limit": 200}),
        "event": ("/events/filter", {"filter": {"event": {"name": ["secrets.end"]}}}),
    }
    deadline = time.monotonic() + PATIENCE
    with httpx.Client(base_url=server.api_url, timeout=PATIENCE, trust_env=False) as client:
        while wanted:
            for name, (path, asked) in [*wanted.items()]:
                answer = client.post(server.api_url + path, json=asked)
                assert answer.is_success, answer.text
                if "the end of all uses" in answer.text or '"secrets.end"' in answer.text:
                    del wanted[name]
            assert time.monotonic() < deadline, f"Prefect never showed the last {[*wanted]}"
            time.sleep(0.1)


def guarded(folder: Path, key: str) -> Path:
    """The configuration of a server that asks for a key, and whose graphs see headers."""
    folder.mkdir()
    (folder / "auth.py").write_text(GUARD.replace("{key}", key), encoding="utf-8")
    shared = json.loads((AGENT / "langgraph.json").read_text(encoding="utf-8"))
    config = {
        "dependencies": ["."],
        "graphs": {"worker": f"{AGENT / 'worker.py'}:worker"},
        "auth": {"path": "./auth.py:auth"},
        "http": shared["http"],
        "webhooks": shared["webhooks"],
    }
    path = folder / "langgraph.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def run_script(
    folder: Path, prefect: PrefectServer, langgraph: LangGraphServer, told: dict[str, Any]
) -> subprocess.CompletedProcess[bytes]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        "PYTHONPATH": str(HERE.parent),
        "PREFECT_API_URL": prefect.api_url,
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_LOCAL_STORAGE_PATH": str(folder / "results"),
        "PREFECT_LOGGING_EXTRA_LOGGERS": "langgraph_sdk,prefect_langgraph",
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "PREFECT_LOGGING_ROOT_LEVEL": "INFO",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
    }
    return subprocess.run(
        [sys.executable, str(HERE / "use_everything.py")],
        input=json.dumps({**told, "url": langgraph.url}).encode(),
        env=environment,
        capture_output=True,
        check=False,
    )


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Traces:
    folder = tmp_path_factory.mktemp("secrets")
    left, scratch = folder / "left", folder / "scratch"
    (left / "results").mkdir(parents=True)
    scratch.mkdir()
    marks = {name: f"zq{name.replace('_', '')}{uuid.uuid4().hex}" for name in (*MARKS, "parameter")}
    beacons = {name: f"beacon{name}{uuid.uuid4().hex}" for name in BEACONS}
    told = {"marks": marks, "beacons": beacons, "folder": str(left), "scratch": str(scratch)}
    settings = {"PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "0.5"}
    with run_prefect_server(home=folder / "prefect", env=settings) as prefect:
        agent = guarded(folder / "agent", marks["key"])
        environment = {"BG_JOB_TIMEOUT_SECS": "5", "CRON_SCHEDULER_SLEEP_TIME": "1"}
        with run_langgraph_server(agent, jobs=20, env=environment) as langgraph:
            done = run_script(left, prefect, langgraph, told)
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        wait_for_the_end(prefect)
    # It has been stopped in good order by now, so it has written down all that it knew.
    found = dict(tables(prefect.home / "prefect.db"))
    for root in (left, prefect.home):
        files = [file for file in root.rglob("*") if file.is_file()]
        found |= {str(file.relative_to(folder)): file.read_bytes() for file in files}
    found |= {"standard output": done.stdout, "standard error": done.stderr}
    report = json.loads(done.stdout.splitlines()[-1])
    return Traces(report, marks, beacons, {place: unfolded(text) for place, text in found.items()})


@pytest.mark.parametrize("mark", MARKS)
def test_secret_is_found_nowhere(mark: str, traces: Traces) -> None:
    assert traces.places_with(traces.marks[mark]) == []


def test_parameter_of_a_flow_is_found_only_where_prefect_keeps_parameters(traces: Traces) -> None:
    places = traces.places_with(traces.marks["parameter"])
    files = {place for place in places if place.startswith("prefect/prefect.db")}
    assert {*places} - files == {"table flow_run"}


def test_secrets_reached_the_deployment_that_repeats_them(traces: Traces) -> None:
    assert {*traces.marks} - {*traces.report["sent"]} == UNSENT


@pytest.mark.parametrize("beacon", BEACONS)
def test_search_finds_what_was_planted_in_each_place(beacon: str, traces: Traces) -> None:
    places = traces.places_with(traces.beacons[beacon])
    assert any(re.search(BEACONS[beacon], place) for place in places), places


def test_search_reads_the_files_of_the_database(traces: Traces) -> None:
    files = [place for place in traces.left if place.startswith("prefect/prefect.db")]
    assert {*traces.places_with(traces.beacons["log"])} & {*files}


def test_every_public_name_and_command_was_used(traces: Traces) -> None:
    errors = {name for name in prefect_langgraph.__all__ if is_error(name)}
    shown = {*traces.report["shown"]}
    assert {*traces.report["without use"]} - errors - PARTS - shown == set()
    assert traces.report["without call"] == []


def test_uses_went_well_where_the_deployment_works_and_only_there(traces: Traces) -> None:
    uses = set(prefect_langgraph.__all__) - {*traces.report["without use"]}
    assert uses - {*traces.report["went well"]} == {"with_finalizer"}
    assert {*traces.report["went well although refused"]} == ALONE
    assert traces.report["went well although half refused"] == []
    assert {*traces.report["went well although failing"]} == HARMLESS


def test_every_error_came_up(traces: Traces) -> None:
    errors = {name for name in prefect_langgraph.__all__ if is_error(name)}
    assert errors - BASES - {*traces.report["shown"]} == set()


def is_error(name: str) -> bool:
    value = getattr(prefect_langgraph, name)
    return isinstance(value, type) and issubclass(value, LangGraphError)


@pytest.mark.parametrize(
    "wrap", [bytes, base64.b64encode, base64.urlsafe_b64encode, base64.encodebytes]
)
def test_search_sees_through_base64(wrap: Callable[[bytes], bytes]) -> None:
    text = f"zq{uuid.uuid4().hex}"
    for shift in range(3):
        hidden = wrap(b"x" * shift + b"some words before" + text.encode() + b" and after")
        assert Traces({}, {}, {}, {"here": unfolded(hidden)}).places_with(text) == ["here"]
