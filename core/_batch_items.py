"""The runs of a batch, and how many of them go into one request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prefect_langgraph._start import RunRequest
from prefect_langgraph.errors import LangGraphError
from prefect_langgraph.models import RunHandle
from prefect_langgraph.ownership import Key, canonical

CHUNK = 250
CHUNK_BYTES = 4_000_000


@dataclass
class Item:
    """One run to start.

    Attributes:
        index: Its place among the inputs.
        request: What to run.
        key: What makes a second attempt find it, or None.
        failures: How many runs of earlier attempts under this key have failed.
        handle: Set when it is started or adopted.
        error: Set when the server refused it.
    """

    index: int
    request: RunRequest
    key: Key | None = None
    failures: int = 0
    handle: RunHandle | None = None
    error: LangGraphError | None = None

    @property
    def settled(self) -> bool:
        """True when it was started, adopted or refused."""
        return self.handle is not None or self.error is not None

    @property
    def text(self) -> str | None:
        """The key of the try that is due."""
        return self.key.after(self.failures) if self.key is not None else None


def chunks_of(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Requests of a bounded number of runs, bytes, and one set of headers."""
    chunk: list[Item] = []
    size = 0
    for item in items:
        more = len(canonical(item.request.arguments))
        full = len(chunk) >= CHUNK or size + more > CHUNK_BYTES
        if chunk and (full or chunk[0].request.headers != item.request.headers):
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += more
    if chunk:
        yield chunk
