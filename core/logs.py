"""Log lines with the same words everywhere."""

from __future__ import annotations

import logging

from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger

LoggerOrAdapter = logging.Logger | logging.LoggerAdapter[logging.Logger]


def run_logger() -> LoggerOrAdapter:
    """Prefect's run logger inside a flow or task run, otherwise this package's."""
    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger("langgraph")


def counted(number: int, word: str) -> str:
    """A number of things in words: `1 run`, `2,000 runs`."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"
