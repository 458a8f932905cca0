"""What crosses this package's boundary: frozen, JSON, without secrets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, TypeVar, overload

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from prefect_langgraph.errors import FanOutError, RunError

T = TypeVar("T", bound=BaseModel)

Origin = Literal["started", "adopted", "restarted"]
"""How a call came by its run.

`started`: this call started it. `adopted`: an earlier attempt had started it. `restarted`: an
earlier attempt's run had failed, so this call started a fresh one.
"""


class RunStatus(StrEnum):
    """The status of a run, as it is and not as the server words it.

    `interrupted` means waiting for a person. The server also calls a cancelled run interrupted; here
    that is `cancelled`.
    """

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    LOST = "lost"

    @property
    def ended(self) -> bool:
        """True when the run will not change any more."""
        return self not in (RunStatus.PENDING, RunStatus.RUNNING)


def refuse_quietly(cls: type[T], data: Any, handler: ModelWrapValidatorHandler[T]) -> T:
    """Validate, and take the values out of an error: it is pickled with them, also when it hides them.

    What is refused may be a secret in the wrong field, or in an address.
    """
    try:
        return handler(data)
    except ValidationError as error:
        found = [
            InitErrorDetails(
                type=PydanticCustomError(line["type"], "{said}", {"said": line["msg"]}),
                loc=line["loc"],
                input="…",
            )
            for line in error.errors(include_input=False, include_context=False, include_url=False)
        ]
        raise ValidationError.from_exception_data(error.title, found, hide_input=True) from None


class Model(BaseModel):
    """A frozen model that forbids unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    _refuse_quietly = model_validator(mode="wrap")(refuse_quietly)


class OneValue:
    """Makes a pydantic model one value to Prefect's `.map`, which takes everything iterable apart.

    Prefect also calls `dict(model)`, which is served by `keys` and `[]` in place of iteration.
    """

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(f"a {type(self).__name__} is one value: give .map a list of them")

    def keys(self) -> Iterable[str]:
        """The names of the fields."""
        return self._fields().keys()

    def __getitem__(self, name: str) -> Any:
        return self._fields()[name]

    def _fields(self) -> dict[str, Any]:
        return dict(BaseModel.__iter__(self))  # type: ignore[arg-type]


class RunHandle(OneValue, Model):  # type: ignore[misc]
    """Where a run is. Small, JSON, no secrets: it may cross processes, results and parameters.

    Attributes:
        run_id: The run.
        thread_id: The thread it runs on.
        assistant_id: The assistant, as it was asked for.
        url: The deployment's address.
        credentials: The saved block's name. None when the block was not saved; then the handle works
            in the process that made it, and elsewhere with `credentials=`.
        key: What makes a second attempt find this run, or None.
        owns_thread: True when the thread exists for this run only and goes with it.
        origin: Whether this call started, adopted or restarted the run.

    Example:
        >>> handle = RunHandle(
        ...     run_id="1f0c", thread_id="9b2e", assistant_id="agent", url="http://localhost:2024"
        ... )
        >>> RunHandle.model_validate_json(handle.model_dump_json()) == handle
        True
    """

    run_id: str
    thread_id: str
    assistant_id: str
    url: str
    credentials: str | None = None
    key: str | None = None
    owns_thread: bool = False
    origin: Origin = "started"

    def __str__(self) -> str:
        return f"run {self.run_id} of {self.assistant_id} on thread {self.thread_id}"


class RunItem(Model):
    """One run of a fan-out that differs from the others in more than its input.

    Attributes:
        input: The graph's input, as JSON.
        assistant_id: Instead of the fan-out's.
        config: Instead of the fan-out's.
        context: Instead of the fan-out's.
        metadata: Over the fan-out's.
    """

    input: Any = Field(default=None, repr=False)
    assistant_id: str | None = None
    config: dict[str, Any] | None = Field(default=None, repr=False)
    context: dict[str, Any] | None = Field(default=None, repr=False)
    metadata: dict[str, Any] | None = Field(default=None, repr=False)


class StreamPart(OneValue, Model):  # type: ignore[misc]
    """One part of a run's stream.

    Attributes:
        event: What it is: `metadata` for the first part, else the stream mode it belongs to. The mode
            `messages-tuple` gives `messages`; `messages` gives `messages/partial` and others.
        namespace: Where in the graph: empty for the graph itself, one `node:id` per level of subgraph.
        data: As the server sent it.
        id: Where `join_stream(handle, last_event_id=...)` goes on after this part. None when the run
            keeps no parts.

    Example:
        >>> part = StreamPart(event="custom", data={"done": 0.5})
        >>> part.event, part.namespace, part.data
        ('custom', (), {'done': 0.5})
    """

    event: str
    namespace: tuple[str, ...] = ()
    data: Any = None
    id: str | None = None

    def keys(self) -> Iterable[str]:
        """Nothing: Prefect then links the part to its task run, and not what is in it.

        It goes by the ids of objects, which for the contents of thousands of parts are soon those of
        other objects.
        """
        return ()


class Usage(Model):
    """Tokens that the AI messages of a result report, added up."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
        )


class RunFailure(Model):
    """Why a run did not succeed, as the server tells it."""

    error: str
    message: str = ""

    def __str__(self) -> str:
        return f"{self.error}: {self.message}" if self.message else self.error


class RunResult(Model):
    """What became of a run.

    Attributes:
        handle: The run.
        status: How it stands. `values` are final only when it is `success`.
        values: The run's own state, None while it is on its way or when there is none.
        error: Why it did not succeed, None when it did or is still on its way.
        interrupts: `id` and `value` of each interrupt; empty at a static breakpoint.
        created_at: When the server took the run.
        ended_at: When it ended by the server's clock, or None.
        usage: Tokens, when messages carry them.
    """

    handle: RunHandle
    status: RunStatus
    values: Any = None
    error: RunFailure | None = None
    interrupts: tuple[dict[str, Any], ...] = ()
    created_at: datetime | None = None
    ended_at: datetime | None = None
    usage: Usage | None = None

    @property
    def origin(self) -> Origin:
        """Whether the run was started, adopted or restarted by the call."""
        return self.handle.origin

    @property
    def seconds(self) -> float | None:
        """Seconds from creation to end by the server's clock, or None."""
        if self.created_at is None or self.ended_at is None:
            return None
        # The server gives a run with after_seconds a creation time that lies ahead.
        return max(0.0, (self.ended_at - self.created_at).total_seconds())

    def as_error(self) -> RunError | None:
        """The typed error for this result, or None when it succeeded or is on its way."""
        from prefect_langgraph._outcomes import error_of

        return error_of(self)

    def raise_for_failure(self) -> RunResult:
        """Return self, or raise the typed error when the run did not succeed."""
        if (error := self.as_error()) is not None:
            raise error
        return self


class FanOutResult(Model, Sequence[RunResult]):
    """The results of many runs, in input order.

    Example:
        >>> FanOutResult(results=()).counts
        {}
    """

    results: tuple[RunResult, ...] = Field(default_factory=tuple)

    @overload
    def __getitem__(self, index: int) -> RunResult: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[RunResult]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self.results[index]

    def keys(self) -> Iterable[str]:
        """Nothing: Prefect calls `dict(model)`, to look for futures in each value of each run."""
        return ()

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[RunResult]:  # type: ignore[override]
        return iter(self.results)

    @property
    def values(self) -> list[Any]:
        """The values of every run in input order; None where a run has none."""
        return [result.values for result in self.results]

    @property
    def failed(self) -> list[RunResult]:
        """The results that are not a success, in input order."""
        return [result for result in self.results if result.status is not RunStatus.SUCCESS]

    @property
    def counts(self) -> dict[RunStatus, int]:
        """How many runs have each status. A status that no run has is absent."""
        return dict(Counter(result.status for result in self.results))

    def raise_for_failures(self) -> FanOutResult:
        """Return self, or raise one `FanOutError` that holds every result."""
        errors = [error for result in self.results if (error := result.as_error()) is not None]
        if errors:
            shown = ", ".join(f"{count} {status}" for status, count in sorted(self.counts.items()))
            raise FanOutError(
                f"{len(errors)} of {len(self.results)} runs did not succeed ({shown}). "
                "See .result for every run; on_failure='collect' returns it instead.",
                errors,
                self,
            )
        return self
