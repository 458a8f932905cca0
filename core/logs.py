"""Log lines with the same words everywhere."""

from __future__ import annotations

import logging
import re

from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger

LoggerOrAdapter = logging.Logger | logging.LoggerAdapter[logging.Logger]


# Control characters but for tab and line feed, what turns the direction of writing or is not seen, and
# halves of characters.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """What others wrote, so that nothing in it moves the cursor, hides or turns what is beside it."""
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text)


def run_logger() -> LoggerOrAdapter:
    """Prefect's run logger inside a flow or task run, otherwise this package's."""
    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger("langgraph")


def counted(number: int, word: str) -> str:
    """A number of things in words: `1 run`, `2,000 runs`."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"
