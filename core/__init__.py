"""Run LangGraph Deploy from Prefect, and get the truth back.

Everything public is imported from here. Importing does no work: each name is loaded when it is first
used, since Prefect imports this package at the start of every server that it is installed beside.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect_langgraph._version import __version__
    from prefect_langgraph.blocks.assistant import LangGraphAssistant, LangGraphRun
    from prefect_langgraph.blocks.credentials import LangGraphCredentials
    from prefect_langgraph.cleanup.models import SweepEntry, SweepReport
    from prefect_langgraph.crons.models import CronHandle, CronPlan, CronSpec
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
        StreamBrokenError,
        ThreadBusyError,
        UnreachableError,
    )
    from prefect_langgraph.flows.approvals import aask_interrupts, ask_interrupts
    from prefect_langgraph.flows.cron_window import cron_window
    from prefect_langgraph.flows.fan_out import afan_out, fan_out
    from prefect_langgraph.flows.finalizer import with_finalizer
    from prefect_langgraph.flows.reconcile_crons import reconcile_crons_flow
    from prefect_langgraph.flows.resume import aresume_waiting, resume_waiting
    from prefect_langgraph.flows.run_assistant import run_assistant
    from prefect_langgraph.flows.suspension import asuspend_until_ended, suspend_until_ended
    from prefect_langgraph.flows.sweep import asweep, sweep
    from prefect_langgraph.headers import HeaderPolicy, Token
    from prefect_langgraph.models import (
        Answer,
        Budget,
        Price,
        Question,
        RunHandle,
        RunItem,
        RunStatus,
        StreamPart,
    )
    from prefect_langgraph.results import FanOutResult, FanOutUsage, RunFailure, RunResult, Usage
    from prefect_langgraph.schedules import next_fires
    from prefect_langgraph.suspension.models import ResumeEntry, ResumeReport
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
    from prefect_langgraph.tasks.crons import (
        acreate_cron,
        adelete_cron,
        asearch_crons,
        aupdate_cron,
        create_cron,
        delete_cron,
        search_crons,
        update_cron,
    )
    from prefect_langgraph.tasks.many_runs import (
        acancel_runs,
        ajoin_runs,
        astart_runs,
        cancel_runs,
        join_runs,
        start_runs,
    )
    from prefect_langgraph.tasks.reconcile import areconcile_crons, reconcile_crons
    from prefect_langgraph.tasks.runs import (
        arun_on_thread,
        arun_stateless,
        run_on_thread,
        run_stateless,
    )
    from prefect_langgraph.tasks.streams import (
        ajoin_stream,
        astream_run,
        astream_to_logs,
        join_stream,
        stream_run,
        stream_to_logs,
    )
    from prefect_langgraph.tasks.temporary_cron import temporary_cron
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
    "_version": ("__version__",),
    "blocks.assistant": ("LangGraphAssistant", "LangGraphRun"),
    "blocks.credentials": ("LangGraphCredentials",),
    "crons.models": ("CronHandle", "CronPlan", "CronSpec"),
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
        "StreamBrokenError",
        "ThreadBusyError",
        "UnreachableError",
    ),
    "flows.approvals": ("aask_interrupts", "ask_interrupts"),
    "flows.cron_window": ("cron_window",),
    "flows.fan_out": ("afan_out", "fan_out"),
    "flows.finalizer": ("with_finalizer",),
    "flows.reconcile_crons": ("reconcile_crons_flow",),
    "flows.resume": ("aresume_waiting", "resume_waiting"),
    "flows.run_assistant": ("run_assistant",),
    "flows.suspension": ("asuspend_until_ended", "suspend_until_ended"),
    "flows.sweep": ("asweep", "sweep"),
    "headers": ("HeaderPolicy", "Token"),
    "models": (
        "Answer",
        "Budget",
        "Price",
        "Question",
        "RunHandle",
        "RunItem",
        "RunStatus",
        "StreamPart",
    ),
    "results": ("FanOutResult", "FanOutUsage", "RunFailure", "RunResult", "Usage"),
    "schedules": ("next_fires",),
    "cleanup.models": ("SweepEntry", "SweepReport"),
    "suspension.models": ("ResumeEntry", "ResumeReport"),
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
    "tasks.crons": (
        "acreate_cron",
        "create_cron",
        "adelete_cron",
        "asearch_crons",
        "aupdate_cron",
        "delete_cron",
        "search_crons",
        "update_cron",
    ),
    "tasks.many_runs": (
        "acancel_runs",
        "ajoin_runs",
        "astart_runs",
        "cancel_runs",
        "join_runs",
        "start_runs",
    ),
    "tasks.reconcile": ("areconcile_crons", "reconcile_crons"),
    "tasks.runs": ("arun_on_thread", "arun_stateless", "run_on_thread", "run_stateless"),
    "tasks.streams": (
        "ajoin_stream",
        "astream_run",
        "astream_to_logs",
        "join_stream",
        "stream_run",
        "stream_to_logs",
    ),
    "tasks.temporary_cron": ("temporary_cron",),
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
    "Answer",
    "AuthenticationError",
    "Budget",
    "CronHandle",
    "CronPlan",
    "CronSpec",
    "DeploymentError",
    "FanOutError",
    "FanOutResult",
    "FanOutUsage",
    "HeaderPolicy",
    "HeaderPolicyError",
    "InvalidRequestError",
    "JoinTimeoutError",
    "LangGraphAssistant",
    "LangGraphCredentials",
    "LangGraphError",
    "LangGraphRun",
    "NotFoundError",
    "Price",
    "Question",
    "RateLimitedError",
    "ResumeEntry",
    "ResumeReport",
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
    "StreamBrokenError",
    "StreamPart",
    "SweepEntry",
    "SweepReport",
    "ThreadBusyError",
    "Token",
    "UnreachableError",
    "Usage",
    "__version__",
    "aask_interrupts",
    "acancel_run",
    "acancel_runs",
    "acreate_cron",
    "acreate_thread",
    "adelete_cron",
    "adelete_thread",
    "afan_out",
    "aget_run",
    "aget_thread_state",
    "ajoin_run",
    "ajoin_runs",
    "ajoin_stream",
    "areconcile_crons",
    "aresume_waiting",
    "arun_on_thread",
    "arun_stateless",
    "asearch_crons",
    "ask_interrupts",
    "astart_run",
    "astart_runs",
    "astream_run",
    "astream_to_logs",
    "asuspend_until_ended",
    "asweep",
    "aupdate_cron",
    "aupdate_thread_state",
    "cancel_run",
    "cancel_runs",
    "create_cron",
    "create_thread",
    "cron_window",
    "delete_cron",
    "delete_thread",
    "fan_out",
    "get_run",
    "get_thread_state",
    "join_run",
    "join_runs",
    "join_stream",
    "next_fires",
    "reconcile_crons",
    "reconcile_crons_flow",
    "resume_waiting",
    "run_assistant",
    "run_on_thread",
    "run_stateless",
    "search_crons",
    "start_run",
    "start_runs",
    "stream_run",
    "stream_to_logs",
    "suspend_until_ended",
    "sweep",
    "temporary_cron",
    "update_cron",
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
