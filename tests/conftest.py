"""The real servers that all tests share.

Prefect reads its settings once, for all OS threads of a process, when it is first imported. So the
address of its server is fixed here, before that import; the server itself starts when a test first
asks for it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
AGENT = ROOT / "examples" / "agent" / "langgraph.json"

# Hypothesis gives an example 200 ms, and a busy machine misses them.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

# Keys and addresses of whoever runs the tests must not reach a test.
for name in [*os.environ]:
    if name.startswith(("PREFECT_", "LANGSMITH_", "LANGCHAIN_", "LANGGRAPH_")):
        del os.environ[name]

# Prefect sends its last logs and events from exit handlers of its own. What is registered before its
# import runs after them, so the server is still there.
_AT_EXIT = ExitStack()
atexit.register(_AT_EXIT.close)

_HOME = Path(tempfile.mkdtemp(prefix="prefect-langgraph-tests-"))
_AT_EXIT.callback(shutil.rmtree, _HOME, ignore_errors=True)
os.environ["PREFECT_HOME"] = str(_HOME)
os.environ["DO_NOT_TRACK"] = "1"
# On a busy machine answers may take longer than 60 s, and a Prefect that a process without an address
# starts for itself longer than 20 s.
os.environ["PREFECT_API_REQUEST_TIMEOUT"] = "300"
os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "300"
# Of a task that is called outside any flow, Prefect itself warns that its own log lines go nowhere.
os.environ["PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW"] = "ignore"

from prefect_langgraph.testing import (  # noqa: E402
    LangGraphServer,
    PrefectServer,
    run_prefect_server,
)
from prefect_langgraph.testing.process import reserve_port  # noqa: E402
from support.runtime import INMEM, RUNTIMES, run_agent_server  # noqa: E402

_RESERVED, _PREFECT_PORT = reserve_port()
_AT_EXIT.enter_context(_RESERVED)
os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{_PREFECT_PORT}/api"


@pytest.fixture(scope="session")
def prefect_server() -> PrefectServer:
    """A Prefect server of this session's own; this process and its children already point at it."""
    return _AT_EXIT.enter_context(run_prefect_server(port=_PREFECT_PORT))


@pytest.fixture(scope="session")
def langgraph_server() -> Iterator[LangGraphServer]:
    """The LangGraph server of `examples/agent`, shared by all tests that leave it clean enough."""
    with run_agent_server(AGENT, jobs=20) as server:
        yield server


@pytest.fixture(autouse=True)
def _no_unsaved_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test is as a process of its own: blocks that others did not save are not known to it."""
    # Not above: it imports Prefect, which must know the address of its server by then.
    monkeypatch.setattr("prefect_langgraph.blocks.credentials._unsaved", {})


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--runtime", choices=RUNTIMES, default=INMEM, help="the LangGraph server: inmem, or postgres"
    )


def pytest_configure(config: pytest.Config) -> None:
    os.environ["TEST_RUNTIME"] = config.getoption("--runtime")
    config.addinivalue_line("markers", "inmem_only(reason): not on the Postgres runtime, and why")


# What takes long is begun first, or one process would be alone with it at the end. What a page of the
# documentation leaves behind is taken away with all work pools, so pages come after workers.
_BEGUN = (
    "faults/test_approvals.py",
    "faults/test_suspension.py",
    "worker/test_postgresql.py",
    "worker",
    "docs/test_markdown.py",
    "secrets",
    "faults/test_gateway.py",
    "docs",
    "browser",
    "runners",
    "faults",
)


def _begin(item: pytest.Item) -> int:
    """The place at which the file of a test is begun."""
    names = (f"{item.path.parent.name}/{item.path.name}", item.path.parent.name)
    return next((place for place, name in enumerate(_BEGUN) if name in names), len(_BEGUN))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=_begin)
    if config.getoption("--runtime") == INMEM:
        return
    elsewhere = [item for item in items if item.get_closest_marker("inmem_only")]
    config.hook.pytest_deselected(items=elsewhere)
    items[:] = [item for item in items if item not in elsewhere]


class _Ran:
    count = 0


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and not report.skipped:
        _Ran.count += 1


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    # pytest is content when it skips every test; a run that tested nothing is a failure here.
    if exitstatus == pytest.ExitCode.OK and not _Ran.count and not session.config.option.collectonly:
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
