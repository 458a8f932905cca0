"""Texts that others wrote, for people. It imports nothing, so that errors can use it."""

from __future__ import annotations

import re

# Control characters but for tab and line feed, what turns the direction of writing or is not seen, and
# halves of characters.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """What others wrote, so that nothing in it moves the cursor, hides or turns what is beside it."""
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text)


def cut(text: str, characters: int) -> str:
    """The beginning of a long text, with a sign that there is more."""
    return text if len(text) <= characters else text[: characters - 1] + "…"
