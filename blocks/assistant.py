"""A deployed assistant, as a Prefect job block."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any
from uuid import UUID

from prefect.blocks.abstract import JobBlock, JobRun
from pydantic import (
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from prefect_langgraph.arguments import check_thread_id
from prefect_langgraph.blocks.credentials import (
    SECRETS,
    LangGraphCredentials,
    is_for_another_process,
    resolve,
    resolve_for,
)
from prefect_langgraph.blocks.form import DOCUMENTATION_URL, LOGO_URL
from prefect_langgraph.canonical import off_loop
from prefect_langgraph.models import RunHandle, refuse_quietly
from prefect_langgraph.results import OnInterrupt, RunResult, values_of
from prefect_langgraph.runs import operations
from prefect_langgraph.runs.call import Context, aundoing, context_of, undo_if_interrupted, undoing
from prefect_langgraph.runs.request import RunRequest, check_request
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.loop import io_loop


class LangGraphRun(JobRun[Any]):
    """A run that a `LangGraphAssistant` triggered.

    Attributes:
        handle: Where the run is. It may cross processes; this object should not.

    Example:
        >>> from prefect_langgraph import LangGraphAssistant, LangGraphCredentials
        >>> credentials = LangGraphCredentials.load("default")
        >>> assistant = LangGraphAssistant(credentials=credentials, assistant_id="answer")
        >>> run = assistant.trigger({"question": "What is 6 x 7?"})
        >>> run.wait_for_completion()
        >>> values = run.fetch_result()
    """

    def __init__(self, handle: RunHandle, credentials: LangGraphCredentials) -> None:
        self.handle = handle
        self._credentials = credentials
        self._result: RunResult | None = None

    def wait_for_completion(  # type: ignore[override]
        self, max_wait_seconds: float | None = None
    ) -> None:
        """Wait until the run has ended, however it ended.

        A cancelled caller cancels the run that it triggered. `await_for_completion` is the
        asynchronous twin.

        Args:
            max_wait_seconds: Wall clock. None is unlimited. The run goes on when it has passed.

        Raises:
            JoinTimeoutError: `max_wait_seconds` passed.
        """
        self._result = io_loop().run(self._wait, max_wait_seconds)

    async def await_for_completion(self, max_wait_seconds: float | None = None) -> None:
        """Wait until the run has ended: the asynchronous twin of `wait_for_completion`."""
        self._result = await io_loop().arun(self._wait, max_wait_seconds)

    def fetch_result(self, *, on_interrupt: OnInterrupt = "raise") -> Any:
        """Return the run's values, waiting for its end if need be.

        `afetch_result` is the asynchronous twin.

        Args:
            on_interrupt: "raise" when the run stops for a person, or "return" its output so far with
                the questions as `__interrupt__`.

        Raises:
            RunError: The run did not succeed.
        """
        if self._result is None:
            self.wait_for_completion()
        return self._values(on_interrupt)

    async def afetch_result(self, *, on_interrupt: OnInterrupt = "raise") -> Any:
        """Return the run's values: the asynchronous twin of `fetch_result`."""
        if self._result is None:
            await self.await_for_completion()
        return self._values(on_interrupt)

    def cancel(self) -> RunResult:
        """Stop the run and report how it ended. `acancel` is the asynchronous twin."""
        return io_loop().run(self._cancel)

    async def acancel(self) -> RunResult:
        """Stop the run: the asynchronous twin of `cancel`."""
        return await io_loop().arun(self._cancel)

    def _values(self, on_interrupt: OnInterrupt) -> Any:
        return values_of(self._result, on_interrupt) if self._result is not None else None

    async def _context(self) -> Context:
        connection = await resolve_for(self.handle.url, None, self._credentials)
        return await context_of(connection)

    async def _wait(self, max_wait_seconds: float | None) -> RunResult:
        deadline = Deadline.after(max_wait_seconds)
        context = await self._context()
        result = await operations.wait(
            context,
            self.handle,
            deadline=deadline,
            on_timeout="leave",
            cancel_with_caller=True,
            chosen=False,
        )
        await operations.release(context, [result])
        return result

    async def _cancel(self) -> RunResult:
        context = await self._context()
        deadline = Deadline.after(operations.CANCEL_SECONDS)
        self._result = await operations.cancel(context.deployment, self.handle, deadline=deadline)
        await operations.release(context, [self._result])
        return self._result


class LangGraphAssistant(JobBlock[Any]):
    """A deployed assistant with the configuration that it is to run with.

    Example:
        >>> from prefect_langgraph import LangGraphAssistant, LangGraphCredentials
        >>> credentials = LangGraphCredentials.load("default")
        >>> assistant = LangGraphAssistant(credentials=credentials, assistant_id="answer")
        >>> values = assistant.trigger({"question": "What is 6 x 7?"}).fetch_result()
    """

    _block_type_name = "LangGraph Assistant"
    _block_type_slug = "langgraph-assistant"
    _logo_url = LOGO_URL  # type: ignore[assignment]
    _description = "An assistant of a LangGraph deployment, with its configuration."
    _documentation_url = DOCUMENTATION_URL  # type: ignore[assignment]
    # Prefect's pages draw Markdown: the example of the docstring, without a fence, is an empty box.
    _code_example = """```python
from prefect import flow
from prefect_langgraph import LangGraphAssistant

@flow
def ask(question: str):
    assistant = LangGraphAssistant.load("BLOCK_NAME")
    return assistant.trigger({"question": question}).fetch_result()
```"""

    # What pydantic refuses may be a secret in the wrong field.
    model_config = ConfigDict(hide_input_in_errors=True)
    _refuse_quietly = model_validator(mode="wrap")(refuse_quietly)

    # `position` is the order of the UI's form: a Prefect server on PostgreSQL keeps none of its own.
    credentials: LangGraphCredentials = Field(
        title="Credentials",
        description="The deployment that the assistant is on.",
        json_schema_extra={"position": 0},
    )
    assistant_id: str = Field(
        title="Assistant",
        description="The assistant's id, or a graph's name for its default assistant.",
        min_length=1,
        json_schema_extra={"position": 1},
    )
    config: dict[str, Any] | None = Field(
        default=None,
        repr=False,
        title="Config",
        description="LangGraph config of every run: tags, recursion_limit, configurable.",
        json_schema_extra={"position": 2},
    )
    context: dict[str, Any] | None = Field(
        default=None,
        repr=False,
        title="Context",
        description="Static context of every run, as the graph's context schema names it.",
        json_schema_extra={"position": 3},
    )
    metadata: dict[str, Any] | None = Field(
        default=None,
        repr=False,
        title="Metadata",
        description="Metadata of every run, beside this package's own tags.",
        json_schema_extra={"position": 4},
    )

    def trigger(  # type: ignore[override]
        self, input: Any = None, thread_id: str | UUID | None = None
    ) -> LangGraphRun:
        """Start a run.

        Inside a flow a second attempt adopts the run of the first, unless that failed. `atrigger` is
        the asynchronous twin.

        Args:
            input: The graph's input, as JSON.
            thread_id: The thread, a UUID, or None for one that exists for this run.

        Raises:
            DeploymentError: The deployment refused the request or could not be asked.
        """
        with undoing():
            return io_loop().run(self._start, input, thread_id)

    async def atrigger(self, input: Any = None, thread_id: str | UUID | None = None) -> LangGraphRun:
        """Start a run: the asynchronous twin of `trigger`."""
        async with aundoing():
            return await io_loop().arun(self._start, input, thread_id)

    @model_serializer(mode="wrap")
    def ser_model(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> Any:
        """Serialize as every block, but without secrets in what Prefect sends to other processes."""
        shown = super().ser_model(handler, info)
        if is_for_another_process(info):
            shown["credentials"] = self.credentials.model_dump(exclude=set(SECRETS))
        return shown

    async def _own_credentials(self) -> LangGraphCredentials:
        name, credentials = self._block_document_name, self.credentials
        if name is not None and credentials.left_behind and credentials.saved_name is None:
            # In another process, without the secrets that were saved as a part of this block.
            saved: LangGraphAssistant = await LangGraphAssistant.aload(name)
            credentials = saved.credentials
        return credentials

    async def _start(self, input: Any, thread_id: str | UUID | None) -> LangGraphRun:
        thread = check_thread_id(thread_id) if thread_id is not None else None
        options: Mapping[str, Any] = {
            "input": input,
            "config": self.config,
            "context": self.context,
        }
        request = RunRequest(
            self.assistant_id,
            payload={name: value for name, value in options.items() if value is not None},
            metadata=self.metadata or {},
        )
        request = await off_loop(partial(check_request, request), weigh=options)
        credentials = await self._own_credentials()
        context = await context_of(await resolve(credentials))
        handle = await operations.start(
            context, request, operation="trigger", thread_id=thread, deadline=Deadline()
        )
        undo_if_interrupted(partial(operations.try_to_cancel, context, handle))
        return LangGraphRun(handle, credentials)
