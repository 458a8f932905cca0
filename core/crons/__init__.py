"""Runs that the server starts on a schedule.

| module       | holds |
| ------------ | --- |
| `models`     | handles, specifications and plans |
| `request`    | a cron as the caller described it, and what differs from the server's |
| `operations` | creating, updating and deleting a cron |
| `search`     | finding crons |
| `renewal`    | the moving end of a leased cron |
| `results`    | what the runs of a cron came to |
| `spec_file`  | crons in a YAML file |
| `reconcile`  | making the crons of a deployment what the specifications say |
"""
