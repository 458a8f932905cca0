"""What a user's script says to serve flows of the package: one by itself, or several together.

python -m worker.served one BLOCK
python -m worker.served several BLOCK
"""

from __future__ import annotations

import sys

from prefect import serve

from prefect_langgraph import (
    cron_window,
    fan_out,
    reconcile_crons_flow,
    resume_waiting,
    run_assistant,
    sweep,
)

NAME = "served"

if __name__ == "__main__":
    how, block = sys.argv[1:]
    parameters = {"credentials": block}
    if how == "one":
        fan_out.serve(name=NAME, parameters=parameters)
    else:
        serve(
            cron_window.to_deployment(NAME, parameters=parameters),
            reconcile_crons_flow.to_deployment(NAME, parameters=parameters),
            run_assistant.to_deployment(NAME, parameters={"assistant": block}),
            resume_waiting.to_deployment(NAME, parameters=parameters),
            sweep.to_deployment(NAME, parameters=parameters),
        )
