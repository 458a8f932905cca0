"""The real servers, embedded: for your tests, for this package's tests and for its demo.

`run_langgraph_server` starts LangGraph's own development server from a `langgraph.json`;
`run_prefect_server` starts Prefect's. Both listen on a free port of 127.0.0.1, keep their state in
a folder outside your repository, and end with the process that started them, even when that one is
killed.

    pip install "prefect-langgraph[testing]"

With pytest, name this module as a plugin in the top-level `conftest.py`:

    pytest_plugins = ["prefect_langgraph.testing"]

Then a test that takes the fixture `langgraph_server` finds one server for the whole session. It is
started from the ini option `langgraph_config`, or from the nearest `langgraph.json` at or above the
folder where pytest was started, with as many jobs as `langgraph_jobs` says.

| module    | holds |
| --------- | --- |
| `servers` | the embedded LangGraph and Prefect servers |
| `plugin`   | the fixture `langgraph_server` |
| `process` | a server as a child process that ends with its parent |
"""

from prefect_langgraph.testing.process import ServerStartError
from prefect_langgraph.testing.servers import (
    LangGraphServer,
    PrefectServer,
    run_langgraph_server,
    run_prefect_server,
)

__all__ = [
    "LangGraphServer",
    "PrefectServer",
    "ServerStartError",
    "run_langgraph_server",
    "run_prefect_server",
]

try:
    import pytest as pytest
except ModuleNotFoundError:  # The context managers work without pytest.
    pass
else:
    # pytest looks for fixtures and hooks in the module that is named as the plugin.
    from prefect_langgraph.testing.plugin import langgraph_server as langgraph_server
    from prefect_langgraph.testing.plugin import pytest_addoption as pytest_addoption
