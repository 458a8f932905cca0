"""A flow that waits for its run without a process, served as the demo serves it.

python examples/overnight.py    # with PREFECT_API_URL, and a saved block named `default`
"""

# No annotations from __future__: `.serve()` pickles a flow without the names of its annotations.

from prefect import flow

from prefect_langgraph import join_runs, start_runs, suspend_until_ended, with_finalizer


@with_finalizer("default")
@flow(persist_result=True)
def overnight(seconds: float) -> str:
    """Start a run that takes a while, give the process back, and tell what it came to."""
    handles = start_runs("worker", [{"tag": "report", "sleep": seconds}])
    suspend_until_ended(handles, stay_seconds=0)
    # Executed from the top a second time, it has found the same run.
    result = join_runs(handles)[0]
    return f"{result.values['result']}, of a run that was {result.handle.origin}"


if __name__ == "__main__":
    overnight.serve("demo", pause_on_shutdown=False)
