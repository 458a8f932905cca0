"""`HeaderPolicy` against real servers: what it calls visible is what a graph sees, and nothing else.

Three judges. Servers started from configuration files prove that a policy read from the file is the
one its server follows. One server with a route that replaces its header configuration takes generated
patterns and headers through real requests. And the server's code, in a process of its own because it
needs an environment of its own, decides thousands of cases.
"""

from __future__ import annotations

import json
import string
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from langgraph_sdk.client import SyncLangGraphClient

from prefect_langgraph.headers import HeaderPolicy
from prefect_langgraph.testing import run_langgraph_server
from support.plain_sdk import sync_sdk

AGENT = """
import json
from typing import TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph_api import config
from langgraph_api.utils import headers
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


class State(TypedDict, total=False):
    seen: dict


async def show(state: State, config: RunnableConfig) -> State:
    return {"seen": json.loads(json.dumps(config["configurable"], default=repr))}


show_graph = (
    StateGraph(State).add_node(show).add_edge(START, "show").add_edge("show", END).compile()
)


async def configure(request: Request) -> JSONResponse:
    config.HTTP_CONFIG = await request.json()
    headers.get_header_patterns.cache_clear()
    headers.should_include_header.cache_clear()
    return JSONResponse({})


app = Starlette(routes=[Route("/configure", configure, methods=["POST"])])
"""

JUDGE = """
import json
import sys

from langgraph_api import config
from langgraph_api.utils import headers
from starlette.datastructures import Headers

for line in sys.stdin:
    http, sent = json.loads(line)
    config.HTTP_CONFIG = http
    headers.get_header_patterns.cache_clear()
    headers.should_include_header.cache_clear()
    print(json.dumps(headers.get_configurable_headers(Headers(sent))), flush=True)
"""

# A valid one: the server starts tracing with it.
TRACE = "20240101T000000000000Z11111111-1111-4111-8111-111111111111"
FROM_BAGGAGE = {"langsmith-project", "langsmith-tags", "langsmith-metadata"}
SPECIAL = (
    "Authorization",
    "X-Api-Key",
    "X-Service-Key",
    "x-tenant-id",
    "X-Request-Id",
    "Cookie",
    "Proxy-Authorization",
    "User-Agent",
    "Accept",
    "baggage",
)

parts = st.sampled_from(["x", "X", "user", "User", "id", "org", "a", "_b", "~c"])
names = st.lists(parts, min_size=1, max_size=4).map("-".join).map(lambda text: f"h{text}") | (
    st.lists(parts, min_size=1, max_size=3).map("-".join).map(lambda text: f"X-{text}")
)
values = st.from_regex(r"([!-~]([ -~\t]{0,12}[!-~])?)?", fullmatch=True)
headers_sent = st.dictionaries(names | st.sampled_from(SPECIAL), values, min_size=1, max_size=6).map(
    lambda sent: {name.lower(): (name, value) for name, value in sent.items()}
)


@st.composite
def sections(draw: st.DrawFn) -> dict[str, Any]:
    """A `configurable_headers` section: any spelling, patterns near the names that are sent."""
    whole = names | st.sampled_from(SPECIAL) | st.just("langsmith-trace")
    star = st.tuples(whole, st.integers(0, 8), st.integers(0, 8)).map(
        lambda cut: cut[0][: cut[1]] + "*" + cut[0][len(cut[0]) - cut[2] :]
    )
    odd = st.sampled_from(["*", "**", "", "x-*-*", "x-.*", "x-?*", "*-*-*-id", "[hx]*", "\u212a*"])
    pattern = (whole | star | star.map(str.lower) | whole.map(str.lower)) | odd
    patterns = st.none() | st.lists(pattern, max_size=4)
    keys = ["includes", "excludes", "include", "exclude"]
    return draw(st.fixed_dictionaries({}, optional=dict.fromkeys(keys, patterns)))


@st.composite
def requests(draw: st.DrawFn) -> dict[str, str]:
    sent = dict(draw(headers_sent).values())
    if draw(st.booleans()):
        sent["Langsmith-Trace"] = TRACE
    return sent


def policy_of(folder: Path, section: dict[str, Any] | None) -> HeaderPolicy:
    file = folder / "policy.json"
    file.write_text(json.dumps({"http": {"configurable_headers": section}}), encoding="utf-8")
    return HeaderPolicy.from_langgraph_json(file)


@contextmanager
def server(folder: Path, http: dict[str, Any]) -> Iterator[SyncLangGraphClient]:
    (folder / "agent.py").write_text(AGENT, encoding="utf-8")
    graphs = {"show": "./agent.py:show_graph"}
    file = folder / "langgraph.json"
    file.write_text(json.dumps({"dependencies": ["."], "graphs": graphs, "http": http}), "utf-8")
    with (
        run_langgraph_server(file, jobs=20) as running,
        sync_sdk(running.url) as client,
    ):
        yield client


def start(client: SyncLangGraphClient, sent: dict[str, str], **call: Any) -> str:
    run = client.runs.create(None, "show", input={}, headers=sent, on_completion="keep", **call)
    return run["thread_id"]


def seen(client: SyncLangGraphClient, *threads: str) -> list[dict[str, Any]]:
    """What the graphs that run on these threads saw in their configurable."""
    wanted: list[Any] = ["thread_id", "status", "values"]
    while True:
        found = client.threads.search(ids=[*threads], limit=1000, select=wanted)
        assert {thread["status"] for thread in found} <= {"busy", "idle"}
        if len(found) == len(threads) and all(thread["status"] == "idle" for thread in found):
            values = {thread["thread_id"]: dict(thread["values"] or {})["seen"] for thread in found}
            return [values[thread] for thread in threads]
        time.sleep(0.05)


def among(seen: dict[str, Any], sent: dict[str, str]) -> dict[str, Any]:
    """What was seen of the headers that were sent, and of no others."""
    return {name: seen[name] for name in map(str.lower, sent) if name in seen}


@pytest.fixture(scope="module")
def flexible_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[SyncLangGraphClient]:
    """A server with a route that replaces its header configuration."""
    with server(tmp_path_factory.mktemp("flexible"), {"app": "./agent.py:app"}) as client:
        yield client


def configure(client: SyncLangGraphClient, section: dict[str, Any] | None) -> None:
    client.http.post("/configure", json={"configurable_headers": section})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("policies")


@pytest.fixture(scope="module")
def judge(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The server's code, which decides one case per line."""
    # Its configuration asks for a database at import, and asks nothing of it.
    env = {"REDIS_URI": "fake", "DATABASE_URI": ":memory:", "LANGSMITH_TRACING": "false"}
    with subprocess.Popen(
        [sys.executable, "-c", JUDGE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=env,
        cwd=folder,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def decide(judge: subprocess.Popen[str], section: Any, sent: dict[str, str]) -> dict[str, Any]:
    assert judge.stdin is not None
    assert judge.stdout is not None
    judge.stdin.write(json.dumps([{"configurable_headers": section}, sent]) + "\n")
    judge.stdin.flush()
    return dict(json.loads(judge.stdout.readline()))


@settings(max_examples=500, deadline=None)
@given(section=sections(), sent=requests())
def test_visible_is_what_the_servers_own_code_decides(
    judge: subprocess.Popen[str], folder: Path, section: dict[str, Any], sent: dict[str, str]
) -> None:
    decided = decide(judge, section, sent)
    assert policy_of(folder, section).visible(sent) == among(decided, sent)
    assert set(decided) <= {*map(str.lower, sent), *FROM_BAGGAGE}


def test_every_short_pattern_matches_every_short_name_as_it_does_on_the_server(
    judge: subprocess.Popen[str],
) -> None:
    sent = dict.fromkeys(("".join(n) for size in (1, 2, 3, 4) for n in product("ab", repeat=size)), "")
    for pattern in ("".join(p) for size in (0, 1, 2, 3, 4) for p in product("ab*", repeat=size)):
        for section in ({"includes": [pattern]}, {"includes": ["*"], "excludes": [pattern]}):
            policy = HeaderPolicy.model_validate(section)
            assert policy.visible(sent) == decide(judge, section, sent)


def test_visible_is_what_the_graph_sees_of_a_real_request(
    flexible_server: SyncLangGraphClient, folder: Path
) -> None:
    runs = []

    # The server reads the headers when a run is created, so all runs are awaited together.
    @settings(max_examples=200, deadline=None, phases=[Phase.generate], database=None)
    @given(section=st.none() | sections(), sent=requests())
    def send(section: dict[str, Any] | None, sent: dict[str, str]) -> None:
        configure(flexible_server, section)
        expected = policy_of(folder, section).visible(sent)
        runs.append((start(flexible_server, sent), section, sent, expected))

    send()
    assert len(runs) >= 100
    passed = seen(flexible_server, *(run[0] for run in runs))
    for (_, section, sent, expected), got in zip(runs, passed, strict=True):
        assert among(got, sent) == expected, (section, sent)


@pytest.mark.parametrize(
    "section",
    [
        {"includes": ["x-*", "user-agent", "cookie"], "excludes": ["x-internal-*", "*-token"]},
        {"include": ["X-User", "x-team", "authorization"], "exclude": [], "extra": 1},
    ],
)
def test_policy_read_from_the_servers_file_is_the_one_the_server_follows(
    tmp_path: Path, section: dict[str, Any]
) -> None:
    sent = {
        "X-User": "a",
        "x-team": "b  c",
        "X-Internal-Hop": "d",
        "X-Auth-Token": "e",
        "X-Empty": "",
        "Authorization": "Bearer f",
        "X-Tenant-Id": "g",
        "Cookie": "h=i",
        "User-Agent": "me",
        "Langsmith-Trace": TRACE,
        **{f"X-{char}": "j" for char in string.punctuation if char in "!#$%&'*+.^_`|~"},
    }
    with server(tmp_path, {"configurable_headers": section}) as client:
        policy = HeaderPolicy.from_langgraph_json(tmp_path / "langgraph.json")
        (passed,) = seen(client, start(client, sent))
        assert among(passed, sent) == policy.visible(sent)
        assert set(policy.visible(sent)) >= {"x-team", "langsmith-trace"}


def test_header_replaces_the_configurable_of_the_body_and_its_absence_lets_the_body_stand(
    flexible_server: SyncLangGraphClient,
) -> None:
    configure(flexible_server, {"includes": ["x-*"]})
    body = {"config": {"configurable": {"x-user": "body"}}}
    both = start(flexible_server, {"X-User": "header"}, **body)
    alone = start(flexible_server, {}, **body)
    passed = seen(flexible_server, both, alone)
    assert [configurable["x-user"] for configurable in passed] == ["header", "body"]


def test_header_named_like_an_internal_sends_the_run_to_another_checkpoint(
    flexible_server: SyncLangGraphClient,
) -> None:
    client = flexible_server
    thread = client.threads.create()["thread_id"]
    client.runs.wait(thread, "show", input={})
    first = client.threads.get_history(thread)[-1]["checkpoint"]["checkpoint_id"]

    configure(client, {"includes": ["*"]})
    client.runs.wait(thread, "show", input={}, headers={"checkpoint_id": str(first)})

    parents = [dict(s["parent_checkpoint"] or {}) for s in client.threads.get_history(thread)]
    assert [parent.get("checkpoint_id") for parent in parents].count(first) == 2
    assert "internal" in {warning.code for warning in HeaderPolicy(includes=("*",)).lint()}


def test_trace_and_baggage_pass_without_any_configuration(
    flexible_server: SyncLangGraphClient,
) -> None:
    configure(flexible_server, None)
    sent = {"Langsmith-Trace": TRACE, "Baggage": "langsmith-project=a%20b,langsmith-tags=c%2Cd"}
    (passed,) = seen(flexible_server, start(flexible_server, sent))
    assert passed["langsmith-trace"] == TRACE
    assert passed["langsmith-project"] == "a b"
    assert passed["langsmith-tags"] == ["c", "d"]
    assert HeaderPolicy().visible(sent) == {"langsmith-trace": TRACE}
    assert HeaderPolicy().check(sent) == ()


def test_header_value_is_stored_with_the_run_and_its_checkpoints_but_not_with_a_cron(
    flexible_server: SyncLangGraphClient,
) -> None:
    client = flexible_server
    configure(client, {"includes": ["x-*"]})
    mark = "value-of-the-header"
    thread = start(client, {"X-User": mark})
    (passed,) = seen(client, thread)
    assert passed["x-user"] == mark

    # The SDK's type of a run does not have its kwargs.
    (run,) = client.runs.list(thread)
    stored: dict[str, Any] = dict(run)
    assert stored["kwargs"]["config"]["configurable"]["x-user"] == mark
    assert all(dict(s["metadata"] or {})["x-user"] == mark for s in client.threads.get_history(thread))
    later: Any = client.runs.wait(thread, "show", input={})
    assert "x-user" not in later["seen"]

    cron: dict[str, Any] = dict(
        client.crons.create("show", schedule="0 0 1 1 *", headers={"X-User": mark})
    )
    try:
        assert mark not in json.dumps(cron, default=str)
    finally:
        client.crons.delete(cron["cron_id"])
