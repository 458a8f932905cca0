"""The real servers that all tests share.

Prefect reads its settings once, for all OS threads of a process, when it is first imported. So the
address of its server is fixed here, before that import; the server itself starts when a test first
asks for it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
AGENT = ROOT / "examples" / "agent" / "langgraph.json"

# Keys and addresses of whoever runs the tests must not reach a test.
for name in [*os.environ]:
    if name.startswith(("PREFECT_", "LANGSMITH_", "LANGCHAIN_", "LANGGRAPH_")):
        del os.environ[name]

_HOME = Path(tempfile.mkdtemp(prefix="prefect-langgraph-tests-"))
os.environ["PREFECT_HOME"] = str(_HOME)
os.environ["DO_NOT_TRACK"] = "1"

from prefect_langgraph._process import reserve_port  # noqa: E402
from prefect_langgraph.testing import (  # noqa: E402
    LangGraphServer,
    PrefectServer,
    run_langgraph_server,
    run_prefect_server,
)

_RESERVED, _PREFECT_PORT = reserve_port()
os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{_PREFECT_PORT}/api"


def pytest_unconfigure() -> None:
    _RESERVED.close()
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[PrefectServer]:
    """A Prefect server of this session's own; this process and its children already point at it."""
    with run_prefect_server(home=_HOME / "server", port=_PREFECT_PORT) as server:
        yield server


@pytest.fixture(scope="session")
def langgraph_server() -> Iterator[LangGraphServer]:
    """The LangGraph server of `examples/agent`, shared by all tests that leave it clean enough."""
    with run_langgraph_server(AGENT, jobs=20) as server:
        yield server
