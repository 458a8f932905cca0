"""The parts of a stream as log lines. Pure, but for `write_lines`, which keeps the time.

Tokens of a message are joined into its text. What a graph was given stays out of the log: of a state
only the names of the nodes that wrote it are shown, and messages of people are left out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import orjson

from prefect_langgraph.logs import run_logger
from prefect_langgraph.models import StreamPart

LINE_SECONDS = 1.0

_MAX_CUSTOM = 500

_REMEMBERED = 100  # messages whose text is kept, to tell a whole one from its tokens

_SPOKEN = frozenset({"ai", "AIMessageChunk", "AIMessage", "tool", "ToolMessage", "ToolMessageChunk"})


class LogLines:
    """Collects parts, and gives what has come since the last line as one line."""

    def __init__(self) -> None:
        self._pieces: list[tuple[str, str]] = []  # who speaks, and the text so far
        self._told: dict[str, str] = {}  # by message: the text that came

    def add(self, part: StreamPart) -> None:
        """Take a part in."""
        where = "".join(f"{level.partition(':')[0]}/" for level in part.namespace)
        if part.event == "messages" and isinstance(part.data, list) and part.data:
            meta = part.data[1] if len(part.data) > 1 and isinstance(part.data[1], Mapping) else {}
            self._add_message(part.data[0], where + str(meta.get("langgraph_node") or ""), whole=False)
        elif part.event in ("messages/partial", "messages/complete") and isinstance(part.data, list):
            for message in part.data:
                self._add_message(message, where.rstrip("/"), whole=True)
        elif part.event == "updates" and isinstance(part.data, Mapping):
            for node in part.data:
                text = "interrupted" if node == "__interrupt__" else f"{where}{node} done"
                self._pieces.append(("", text))
        elif part.event == "custom":
            text = orjson.dumps(part.data, option=orjson.OPT_NON_STR_KEYS).decode()
            shown = part.data if isinstance(part.data, str) else text
            self._pieces.append(("", shown if len(shown) <= _MAX_CUSTOM else shown[:_MAX_CUSTOM] + "…"))

    def _add_message(self, message: Any, speaker: str, *, whole: bool) -> None:
        """Add a message or one of its tokens; of a whole one, what its tokens have not said."""
        if not isinstance(message, Mapping) or message.get("type") not in _SPOKEN:
            return
        key, text = str(message.get("id") or ""), _text_of(message.get("content"))
        told = self._told.pop(key, "")
        if whole or not str(message["type"]).endswith("Chunk"):
            text = text[len(told) :] if text.startswith(told) else text
        if key:
            self._told[key] = told + text
            if len(self._told) > _REMEMBERED:
                self._told.pop(next(iter(self._told)))
        source = f"{speaker}\0{key}"
        if not text:
            return
        if key and self._pieces and self._pieces[-1][0] == source:
            self._pieces[-1] = (source, self._pieces[-1][1] + text)
        else:
            self._pieces.append((source, f"{speaker}: {text}" if speaker else text))

    def take(self) -> str | None:
        """One line with all that came since the last, or None when nothing did."""
        line = " | ".join(text for text in (" ".join(text.split()) for _, text in self._pieces) if text)
        self._pieces.clear()
        return line or None


def _text_of(content: Any) -> str:
    """The text of a message: a string, or the text blocks of a list."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "".join(
        block if isinstance(block, str) else str(block.get("text") or "")
        for block in content
        if isinstance(block, str | Mapping)
    )


async def write_lines(parts: AsyncGenerator[StreamPart, None]) -> None:
    """Log the parts as lines, at most one every second, to the end of the parts."""
    lines, loop, logger = LogLines(), asyncio.get_running_loop(), run_logger()
    last = -LINE_SECONDS
    later: asyncio.TimerHandle | None = None

    def flush() -> None:
        nonlocal last, later
        later = None
        if (line := lines.take()) is not None:
            last = time.monotonic()
            logger.info("%s", line)

    async def rest() -> None:
        if later is not None:
            later.cancel()
        if (line := lines.take()) is not None:
            await asyncio.sleep(max(last + LINE_SECONDS - time.monotonic(), 0.0))
            logger.info("%s", line)

    try:
        async for part in parts:
            lines.add(part)
            if later is None:
                wait = last + LINE_SECONDS - time.monotonic()
                later = loop.call_later(max(wait, 0.0), flush)
    except Exception:
        await rest()
        raise
    else:
        await rest()
    finally:
        if later is not None:
            later.cancel()
