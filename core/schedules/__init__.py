"""Prefect schedules and cron expressions as Deploy crons.

| module        | holds |
| ------------- | --- |
| `deploy_cron` | a schedule as a Deploy cron, or the reason why not |
| `fields`      | the fields of a cron expression |
| `clock`       | when the server fires |
"""

from prefect_langgraph.schedules.deploy_cron import (
    DeployCron,
    ScheduleLike,
    next_fires,
    to_deploy_cron,
)

__all__ = [
    "DeployCron",
    "ScheduleLike",
    "next_fires",
    "to_deploy_cron",
]
