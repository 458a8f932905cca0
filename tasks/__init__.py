"""Prefect tasks, each with an asynchronous twin.

| module           | holds |
| ---------------- | --- |
| `runs`           | runs that the caller waits for: stateless, and on a thread |
| `background`     | starting, looking at, joining and cancelling one run |
| `many_runs`      | the same for many |
| `streams`        | reading a run while it works |
| `threads`        | making, reading, changing and deleting a thread |
| `crons`          | making, changing, deleting and finding crons |
| `temporary_cron` | a cron that lives as long as a block of code |
| `reconcile`      | crons as desired state |
| `_task`          | what makes an operation two tasks, and when a task is retried |
| `_generators`    | generator tasks whose consumers may stop at any point |
"""
