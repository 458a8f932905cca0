"""Addresses of pages about a run: its trace, and its thread in LangGraph Studio.

A block may name both as templates. What is put into one is percent-encoded, so that no name of an agent
leads anywhere else.
"""

from __future__ import annotations

import re
from string import Formatter
from urllib.parse import quote, urlsplit

STUDIO = "https://smith.langchain.com/studio/?baseUrl={url}&threadId={thread_id}"
"""LangSmith's Studio, which connects to the deployment from the browser."""

_UNSAFE = re.compile(r"""[\s<>()"'`\\]""")  # would end a link in markdown

FIELDS = ("run_id", "thread_id", "assistant_id", "url")


def check_template(template: str, needed: str) -> str:
    """Reject a template that cannot become an address of a page.

    Args:
        template: Such as `https://smith.langchain.com/o/ORG/projects/p/PROJECT/r/{run_id}`.
        needed: The field that it must have.

    Raises:
        ValueError: It has other fields, lacks the one, or is no address. The message does not show it.
    """
    template = template.strip()
    try:
        # The whole of each field, so that neither a format nor an attribute can be asked for.
        fields = {
            f"{name}{f'!{how}' if how else ''}{f':{form}' if form else ''}"
            for _, name, form, how in Formatter().parse(template)
            if name is not None
        }
        parts = urlsplit(template)
    except ValueError:
        raise ValueError("it cannot be read: write it like https://host/r/{run_id}") from None
    if _UNSAFE.search(template):
        raise ValueError("blanks, quotes and brackets in it must be percent-encoded, as %20")
    if not fields <= set(FIELDS):
        known = ", ".join(f"{{{name}}}" for name in FIELDS)
        raise ValueError(f"it may have {known} and no other field")
    if needed not in fields:
        raise ValueError(f"it must have {{{needed}}}, or every run would have the same page")
    if parts.scheme not in ("http", "https") or not parts.hostname or "{" in parts.netloc:
        raise ValueError("it must begin with http:// or https:// and name a host")
    if "@" in parts.netloc:
        raise ValueError("it holds a user or a password, and everybody sees the link")
    return template


def filled(template: str, *, run_id: str, thread_id: str, assistant_id: str, url: str) -> str:
    """A template's address for a run."""
    values = {"run_id": run_id, "thread_id": thread_id, "assistant_id": assistant_id, "url": url}
    return template.format_map({name: quote(value, safe="") for name, value in values.items()})
