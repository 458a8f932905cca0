"""Run LangGraph Deploy from Prefect, and get the truth back.

Everything public is imported from here. Importing does no work: each name is loaded when it is first
used, since Prefect imports this package at the start of every server that it is installed beside.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from prefect_langgraph._version import __version__

if TYPE_CHECKING:
    from prefect_langgraph.blocks.assistant import LangGraphAssistant, LangGraphRun
    from prefect_langgraph.blocks.credentials import LangGraphCredentials
    from prefect_langgraph.errors import (
        AuthenticationError,
        DeploymentError,
        FanOutError,
        HeaderPolicyError,
        InvalidRequestError,
        JoinTimeoutError,
        LangGraphError,
        NotFoundError,
        RateLimitedError,
        RunCancelledError,
        RunError,
        RunFailedError,
        RunInterruptedError,
        RunLostError,
        RunTimeoutError,
        ScheduleError,
        ThreadBusyError,
        UnreachableError,
    )
    from prefect_langgraph.flows.fan_out import afan_out, fan_out
    from prefect_langgraph.flows.finalizer import with_finalizer
    from prefect_langgraph.flows.sweep import asweep, sweep
    from prefect_langgraph.headers import HeaderPolicy
    from prefect_langgraph.models import (
        FanOutResult,
        RunFailure,
        RunHandle,
        RunItem,
        RunResult,
        RunStatus,
        Usage,
    )
    from prefect_langgraph.schedules import next_fires
    from prefect_langgraph.sweeping import SweepEntry, SweepReport
    from prefect_langgraph.tasks.background import (
        acancel_run,
        aget_run,
        ajoin_run,
        astart_run,
        cancel_run,
        get_run,
        join_run,
        start_run,
    )
    from prefect_langgraph.tasks.fan_out import (
        acancel_runs,
        ajoin_runs,
        astart_runs,
        cancel_runs,
        join_runs,
        start_runs,
    )
    from prefect_langgraph.tasks.runs import (
        arun_on_thread,
        arun_stateless,
        run_on_thread,
        run_stateless,
    )
    from prefect_langgraph.tasks.threads import (
        acreate_thread,
        adelete_thread,
        aget_thread_state,
        aupdate_thread_state,
        create_thread,
        delete_thread,
        get_thread_state,
        update_thread_state,
    )

_HOMES = {
    "blocks.assistant": ("LangGraphAssistant", "LangGraphRun"),
    "blocks.credentials": ("LangGraphCredentials",),
    "errors": (
        "AuthenticationError",
        "DeploymentError",
        "FanOutError",
        "HeaderPolicyError",
        "InvalidRequestError",
        "JoinTimeoutError",
        "LangGraphError",
        "NotFoundError",
        "RateLimitedError",
        "RunCancelledError",
        "RunError",
        "RunFailedError",
        "RunInterruptedError",
        "RunLostError",
        "RunTimeoutError",
        "ScheduleError",
        "ThreadBusyError",
        "UnreachableError",
    ),
    "flows.fan_out": ("afan_out", "fan_out"),
    "flows.finalizer": ("with_finalizer",),
    "flows.sweep": ("asweep", "sweep"),
    "headers": ("HeaderPolicy",),
    "models": ("FanOutResult", "RunFailure", "RunHandle", "RunItem", "RunResult", "RunStatus", "Usage"),
    "schedules": ("next_fires",),
    "sweeping": ("SweepEntry", "SweepReport"),
    "tasks.background": (
        "acancel_run",
        "aget_run",
        "ajoin_run",
        "astart_run",
        "cancel_run",
        "get_run",
        "join_run",
        "start_run",
    ),
    "tasks.fan_out": (
        "acancel_runs",
        "ajoin_runs",
        "astart_runs",
        "cancel_runs",
        "join_runs",
        "start_runs",
    ),
    "tasks.runs": ("arun_on_thread", "arun_stateless", "run_on_thread", "run_stateless"),
    "tasks.threads": (
        "acreate_thread",
        "adelete_thread",
        "aget_thread_state",
        "aupdate_thread_state",
        "create_thread",
        "delete_thread",
        "get_thread_state",
        "update_thread_state",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AuthenticationError",
    "DeploymentError",
    "FanOutError",
    "FanOutResult",
    "HeaderPolicy",
    "HeaderPolicyError",
    "InvalidRequestError",
    "JoinTimeoutError",
    "LangGraphAssistant",
    "LangGraphCredentials",
    "LangGraphError",
    "LangGraphRun",
    "NotFoundError",
    "RateLimitedError",
    "RunCancelledError",
    "RunError",
    "RunFailedError",
    "RunFailure",
    "RunHandle",
    "RunInterruptedError",
    "RunItem",
    "RunLostError",
    "RunResult",
    "RunStatus",
    "RunTimeoutError",
    "ScheduleError",
    "SweepEntry",
    "SweepReport",
    "ThreadBusyError",
    "UnreachableError",
    "Usage",
    "__version__",
    "acancel_run",
    "acancel_runs",
    "acreate_thread",
    "adelete_thread",
    "afan_out",
    "aget_run",
    "aget_thread_state",
    "ajoin_run",
    "ajoin_runs",
    "arun_on_thread",
    "arun_stateless",
    "astart_run",
    "astart_runs",
    "asweep",
    "aupdate_thread_state",
    "cancel_run",
    "cancel_runs",
    "create_thread",
    "delete_thread",
    "fan_out",
    "get_run",
    "get_thread_state",
    "join_run",
    "join_runs",
    "next_fires",
    "run_on_thread",
    "run_stateless",
    "start_run",
    "start_runs",
    "sweep",
    "update_thread_state",
    "with_finalizer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
