"""Flows ready to deploy, and the finalizer.

| module            | holds |
| ----------------- | --- |
| `fan_out`         | thousands of runs, with a report |
| `_per_run`        | a fan-out with a task run for every run |
| `_sized`          | a flow that measures its parameters before Prefect stores them |
| `run_assistant`   | a saved assistant as a flow |
| `cron_window`     | a cron for a while |
| `reconcile_crons` | crons as desired state |
| `finalizer`       | the hooks that release what a flow run owns as it ends |
| `sweep`           | releasing what no finalizer released |
| `suspension`      | a flow run waits without a process |
| `approvals`       | a join with a person in the middle |
| `resume`          | resuming flow runs whose runs have ended |
| `resume_loop`     | the same in a process that stays |
"""
