"""`prefect_langgraph.testing` starts real servers and never leaves one behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from prefect_langgraph.testing import LangGraphServer, ServerStartError, run_langgraph_server
from support.plain_sdk import sync_sdk
from support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
AGENT = ROOT / "examples" / "agent" / "langgraph.json"


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # A process whose parent is gone may stay a zombie where nothing reaps it.
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z"


def wait_until_gone(pid: int) -> None:
    until(lambda: is_gone(pid))


@pytest.fixture(scope="module")
def own_server() -> Iterator[LangGraphServer]:
    with run_langgraph_server(AGENT, jobs=2) as server:
        yield server


def test_restart_keeps_address_and_state(own_server: LangGraphServer) -> None:
    with sync_sdk(own_server.url) as client:
        thread_id = client.threads.create()["thread_id"]
        client.runs.wait(thread_id, "worker", input={"tag": "kept"})
    url, pid = own_server.url, own_server.pid

    own_server.restart()

    assert (own_server.url, own_server.pid != pid) == (url, True)
    with sync_sdk(own_server.url) as client:
        assert client.threads.get_state(thread_id)["values"]["result"] == "kept"


def test_server_ended_by_an_error_leaves_no_process_and_no_folder() -> None:
    seen: list[LangGraphServer] = []

    def use() -> None:
        with run_langgraph_server(AGENT) as server:
            seen.append(server)
            pids.append(server.pid)
            raise KeyboardInterrupt

    pids: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        use()
    wait_until_gone(pids[0])
    assert not seen[0].state_dir.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_parent_killed_takes_its_server_with_it(tmp_path: Path) -> None:
    script = f"""
import time
from prefect_langgraph.testing import run_langgraph_server
with run_langgraph_server({str(AGENT)!r}) as server:
    print(server.pid, server.state_dir, flush=True)
    time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=tmp_path, text=True
    ) as parent:
        assert parent.stdout is not None
        pid, folder = parent.stdout.readline().split()
        parent.send_signal(signal.SIGKILL)
    wait_until_gone(int(pid))
    assert not Path(folder).exists()


def test_state_is_kept_out_of_the_configurations_folder(own_server: LangGraphServer) -> None:
    assert httpx.get(f"{own_server.url}/ok").json()["ok"] is True
    assert (own_server.state_dir / ".langgraph_api").is_dir()
    assert not list(AGENT.parent.glob(".langgraph_api"))


def test_taken_port_is_refused(own_server: LangGraphServer) -> None:
    with (
        pytest.raises(ServerStartError, match=f"Port {own_server.port} .* is taken"),
        run_langgraph_server(AGENT, port=own_server.port),
    ):
        pytest.fail("started")


def test_graph_that_cannot_be_imported_shows_the_end_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "graph.py").write_text("raise RuntimeError('broken on purpose')\n")
    config = tmp_path / "langgraph.json"
    config.write_text(json.dumps({"dependencies": ["."], "graphs": {"g": "./graph.py:graph"}}))
    with (
        pytest.raises(ServerStartError, match="broken on purpose"),
        run_langgraph_server(config),
    ):
        pytest.fail("started")


def test_missing_cli_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langgraph_cli", None)
    with (
        pytest.raises(ServerStartError, match=r'pip install "prefect-langgraph\[testing\]"'),
        run_langgraph_server(AGENT),
    ):
        pytest.fail("started")


def test_plugin_gives_the_fixture_to_users_tests(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text(f"[pytest]\nlanggraph_config = {AGENT}\n")
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["prefect_langgraph.testing"]\n')
    (tmp_path / "test_user.py").write_text(
        "import httpx\n"
        "def test_ok(langgraph_server):\n"
        "    assert httpx.get(f'{langgraph_server.url}/ok').is_success\n"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr


def test_keys_of_the_environment_do_not_reach_the_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("LANGSMITH_API_KEY", "LANGCHAIN_TRACING_V2", "MY_OWN"):
        monkeypatch.setenv(name, "secret")
    (tmp_path / ".env").write_text("FROM_FILE=1\nLANGSMITH_TRACING=true\n")
    (tmp_path / "graph.py").write_text(
        "import os\n"
        "from typing import Any, TypedDict\n"
        "from langgraph.graph import END, START, StateGraph\n"
        "class S(TypedDict, total=False):\n    env: Any\n"
        "ENV = dict(os.environ)\n"
        "async def show(state: S) -> S:\n    return {'env': ENV}\n"
        "graph = StateGraph(S).add_node('show', show).add_edge(START, 'show')"
        ".add_edge('show', END).compile()\n"
    )
    config = tmp_path / "langgraph.json"
    settings = {"dependencies": ["."], "graphs": {"g": "./graph.py:graph"}, "env": ".env"}
    config.write_text(json.dumps(settings))
    with (
        run_langgraph_server(config, env={"GIVEN": "1"}) as server,
        sync_sdk(server.url) as client,
    ):
        env = client.runs.wait(None, "g", input={})["env"]
    assert "LANGSMITH_API_KEY" not in env
    assert "LANGCHAIN_TRACING_V2" not in env
    assert env["LANGSMITH_TRACING"] == "false"
    assert (env["MY_OWN"], env["FROM_FILE"], env["GIVEN"]) == ("secret", "1", "1")
