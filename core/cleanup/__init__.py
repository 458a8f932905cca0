"""Releasing what a flow run owns on a deployment.

| module    | holds |
| --------- | --- |
| `find`    | what is owned, by its tags |
| `release` | deleting crons, cancelling runs, deleting throw-away threads |
| `sweep`   | releasing for flow runs that cannot |
| `verdict` | whether a flow run's things may be released |
| `models`  | what a sweep found and did |
| `report`  | events and log lines |
"""
