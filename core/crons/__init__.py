"""Runs that the server starts on a schedule.

| module       | holds |
| ------------ | --- |
| `models`     | handles, specifications and plans |
| `request`    | a cron as it should be, and how it differs from the server's |
| `operations` | creating, updating and deleting a cron |
| `search`     | finding crons |
| `renewal`    | moving the end of a cron with a lease |
| `results`    | the results of a cron's runs |
| `spec_file`  | specifications from Python or a file |
| `reconcile`  | making an owner's crons match their specifications |
"""
