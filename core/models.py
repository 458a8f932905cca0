"""What crosses this package's boundary: frozen, JSON, without secrets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

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
        item_key: The caller's own name for what was run: the `key` of its `RunItem`.
        trace_url: The page of the run's trace, where the block has a template for it; else None.
        studio_url: The thread's page in Studio, where the block has a template for it; else None.

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
    item_key: str | None = None
    trace_url: str | None = None
    studio_url: str | None = None

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
        key: The caller's own name for it, such as the key of a row: it comes back in `RunResult.key`,
            in the file of results and in the report, and is not sent.
    """

    input: Any = Field(default=None, repr=False)
    assistant_id: str | None = None
    config: dict[str, Any] | None = Field(default=None, repr=False)
    context: dict[str, Any] | None = Field(default=None, repr=False)
    metadata: dict[str, Any] | None = Field(default=None, repr=False)
    key: str | None = None


class Price(Model):
    """What a model costs, per million tokens, in any currency.

    Attributes:
        input: Of tokens that are given to it.
        output: Of tokens that it says.
        cached: Of given tokens that it has in its cache; None is what others cost.
    """

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached: float | None = Field(default=None, ge=0)


class Budget(Model):
    """When a fan-out starts no more runs. What is None bounds nothing.

    Attributes:
        tokens: When the runs that ended report as many tokens, given and said together.
        cost: When they report tokens of as much money, by `prices`.
        runs: When as many were started.
        failures: When as many did not succeed.
        prices: What each model costs, by the name that its messages give; `*` is any other.

    Example:
        >>> Budget(tokens=2_000_000, failures=50).tokens
        2000000
        >>> Budget(cost=25.0, prices={"*": Price(input=3.0, output=15.0)}).cost
        25.0
    """

    tokens: int | None = Field(default=None, gt=0)
    cost: float | None = Field(default=None, gt=0)
    runs: int | None = Field(default=None, gt=0)
    failures: int | None = Field(default=None, gt=0)
    prices: dict[str, Price] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _bounds_something(self) -> Budget:
        if (self.tokens, self.cost, self.runs, self.failures) == (None,) * 4:
            raise ValueError("give at least one of tokens, cost, runs and failures")
        if self.cost is not None and not self.prices:
            raise ValueError("cost needs prices: none are built in")
        return self


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


AnswerKind = Literal["decisions", "decision", "inbox", "value", "go on"]
"""How a graph wants to be answered.

`decisions`: langchain's middleware, one list for all tool calls of an interrupt. `decision`: the same,
an interrupt for each tool call. `inbox`: Agent Inbox. `value`: whatever the graph takes. `go on`: a
static breakpoint, which takes no answer.
"""


class Question(OneValue, Model):  # type: ignore[misc]
    """What a run that stopped at an interrupt wants to know.

    Attributes:
        title: In a few words: the tool that is to be called, or the beginning of the question.
        text: What the agent says, untrusted.
        tool: The tool that is to be called, or None.
        arguments: Those it is to be called with, or None.
        allowed: The decisions, or the values, to choose from; empty where the answer is free.
        run_id: The run that asks.
        thread_id: Its thread.
        interrupt_id: The interrupt, or None at a static breakpoint.
        assistant_id: The assistant, as it was asked for.
        index: Which of the questions of one interrupt.
        kind: How the graph wants to be answered.
        response_schema: The JSON Schema that an answer is held against, where the graph gives one.

    Example:
        >>> question = Question(title="Send it?", allowed=("yes", "no"))
        >>> question.kind
        'value'
    """

    title: str
    text: str = Field(default="", repr=False)
    tool: str | None = None
    arguments: dict[str, Any] | None = Field(default=None, repr=False)
    allowed: tuple[str, ...] = ()
    run_id: str = ""
    thread_id: str = ""
    interrupt_id: str | None = None
    assistant_id: str = ""
    index: int = 0
    kind: AnswerKind = "value"
    response_schema: dict[str, Any] | None = Field(default=None, repr=False)


class Answer(OneValue, Model):  # type: ignore[misc]
    """A question that was answered, and the run that was told.

    Attributes:
        question: The question.
        reply: What was sent, as the graph takes it.
        answered_by: The name that was given, as stated.
        answered_at: When.
        run_id: The run that goes on with the answer.
    """

    question: Question
    reply: Any = Field(default=None, repr=False)
    answered_by: str
    answered_at: datetime
    run_id: str
