"""Every error that this package raises.

    LangGraphError
    ├── RunError                  a run did not give its values
    │   ├── RunFailedError        the graph raised
    │   ├── RunTimeoutError       the server's own job timeout
    │   ├── RunCancelledError     somebody cancelled it
    │   ├── RunInterruptedError   it waits for a person
    │   └── RunLostError          the server no longer knows it
    ├── JoinTimeoutError          max_wait_seconds passed (also a TimeoutError)
    ├── FanOutError               some of many failed (also an ExceptionGroup)
    ├── StreamBrokenError         parts of a stream were lost
    ├── DeploymentError           the deployment refused or could not be asked
    │   ├── AuthenticationError   401, 403
    │   ├── NotFoundError         404
    │   ├── ThreadBusyError       409 on a run
    │   ├── InvalidRequestError   400, 409, 413, 422, bad input found before a request, and an input
    │   │                         on which the server fails each time (500)
    │   ├── RateLimitedError      429 that outlasted the deadline
    │   └── UnreachableError      no answer, or a 5xx, that outlasted the deadline
    ├── ScheduleError             a schedule that a Deploy cron cannot express
    └── HeaderPolicyError         a header that must not be sent or would not arrive

Messages say what happened, to which assistant, thread and run, and what to do next. They never
hold a secret, a header value or an input. Errors survive pickling: each rebuilds itself from its
message and its attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from prefect_langgraph.texts import visible

if TYPE_CHECKING:
    from prefect_langgraph.models import RunHandle, RunStatus
    from prefect_langgraph.results import FanOutResult


_HOLD_REQUESTS = ("httpx", "httpcore", "langgraph_sdk")


def without_requests(error: BaseException) -> BaseException:
    """The error, without those of other packages on its way that hold a request, and so secrets.

    `raise ... from None` only hides them: Dask has errors pickled with all that hangs on them.
    """
    left, seen = [error], {id(error)}
    while left:
        one = left.pop()
        if one.__suppress_context__ or _holds_request(one.__context__):
            one.__context__ = None
        if _holds_request(one.__cause__):
            one.__cause__ = None
        parts = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        for other in (one.__context__, one.__cause__, *parts):
            if other is not None and id(other) not in seen:
                seen.add(id(other))
                left.append(other)
    return error


def _holds_request(error: BaseException | None) -> bool:
    return type(error).__module__.partition(".")[0] in _HOLD_REQUESTS


class LangGraphError(Exception):
    """Base of every error of this package."""

    def __init__(self, message: str) -> None:
        # It may quote a graph or a server, and is read in terminals.
        super().__init__(visible(message))

    @property
    def message(self) -> str:
        """What happened and what to do next."""
        return str(self.args[0])

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, dict(self.__dict__)))

    def with_more(self, sentence: str) -> LangGraphError:
        """The same error with a further sentence in its message."""
        return _rebuild(type(self), f"{self.message} {sentence}", dict(self.__dict__))


def _rebuild(cls: type[LangGraphError], message: str, attributes: dict[str, Any]) -> LangGraphError:
    error = cls.__new__(cls, message)
    Exception.__init__(error, message)
    error.__dict__.update(attributes)
    return error


class RunError(LangGraphError):
    """A run ended, and not with success.

    Attributes:
        handle: The run.
        status: How it ended.
        values: The state it left, which may be partial. None when there is none.
    """

    def __init__(
        self,
        message: str,
        *,
        handle: RunHandle,
        status: RunStatus,
        values: Any = None,
    ) -> None:
        super().__init__(message)
        self.handle = handle
        self.status = status
        self.values = values


class RunFailedError(RunError):
    """The graph raised an exception.

    Attributes:
        error: The name of the graph's exception, such as `ValueError`.
        detail: The message of the graph's exception.
    """

    def __init__(
        self,
        message: str,
        *,
        handle: RunHandle,
        status: RunStatus,
        values: Any = None,
        error: str | None = None,
        detail: str | None = None,
    ) -> None:
        super().__init__(message, handle=handle, status=status, values=values)
        self.error = error
        self.detail = detail


class RunTimeoutError(RunError):
    """The server stopped the run at its own job timeout. `values` are partial."""


class RunCancelledError(RunError):
    """The run was cancelled or rolled back. `values` are partial."""


class RunInterruptedError(RunError):
    """The run stopped for a person, and its thread waits for an answer.

    Answer with `run_on_thread(thread_id, assistant_id, command={"resume": ...})`.

    Attributes:
        interrupts: One dictionary with `id` and `value` per interrupt; empty at a static breakpoint.
    """

    def __init__(
        self,
        message: str,
        *,
        handle: RunHandle,
        status: RunStatus,
        values: Any = None,
        interrupts: Sequence[dict[str, Any]] = (),
    ) -> None:
        super().__init__(message, handle=handle, status=status, values=values)
        self.interrupts = list(interrupts)


class RunLostError(RunError):
    """The server knows neither the run nor its thread: deleted, expired or never there."""


class JoinTimeoutError(LangGraphError, TimeoutError):
    """`max_wait_seconds` passed before the run ended.

    Attributes:
        handle: The run, or None when the deadline passed before there was one.
        max_wait_seconds: The deadline that passed.
        status: The last status seen.
        result: Of a join of many, the `FanOutResult` with what had ended; otherwise None.
    """

    def __init__(
        self,
        message: str,
        *,
        handle: RunHandle | None = None,
        max_wait_seconds: float | None = None,
        status: RunStatus | None = None,
        result: FanOutResult | None = None,
    ) -> None:
        super().__init__(message)
        self.handle = handle
        self.max_wait_seconds = max_wait_seconds
        self.status = status
        self.result = result


class StreamBrokenError(LangGraphError):
    """Parts of a run's stream were lost: the deployment no longer has them. The run may go on.

    Attributes:
        handle: The run.
        last_event_id: The id of the last part that came, or None when none did.
    """

    def __init__(self, message: str, *, handle: RunHandle, last_event_id: str | None = None) -> None:
        super().__init__(message)
        self.handle = handle
        self.last_event_id = last_event_id


class FanOutError(LangGraphError, ExceptionGroup[Exception]):
    """Some of many runs did not succeed. Nothing is hidden: `result` holds every one.

    Attributes:
        result: The `FanOutResult`, in input order, successes included.
        exceptions: The errors of the runs that did not succeed, in input order.
    """

    result: FanOutResult

    def __new__(
        cls,
        message: str,
        exceptions: Sequence[Exception] = (),
        result: FanOutResult | None = None,
    ) -> Self:
        # ExceptionGroup refuses an empty list, and unpickling starts without one.
        return super().__new__(cls, visible(message), list(exceptions) or [LangGraphError(message)])

    def __init__(self, message: str, exceptions: Sequence[Exception], result: FanOutResult) -> None:
        super().__init__(message)
        self.result = result

    def derive(self, excs: Sequence[Exception], /) -> FanOutError:  # type: ignore[override]
        return FanOutError(self.message, excs, self.result)

    def __reduce__(self) -> tuple[Any, ...]:
        made_from = (self.message, list(self.exceptions), self.result)
        return (FanOutError, made_from, dict(self.__dict__))


class DeploymentError(LangGraphError):
    """The deployment refused a request or could not be asked.

    Attributes:
        status_code: The HTTP status, or None when there was no answer.
        url: The deployment's address.
        retry_until: Until when a task tries again, as a time stamp; None is without a limit.
    """

    retry_until: float | None = None

    def __init__(self, message: str, *, status_code: int | None = None, url: str | None = None) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.url = url


class AuthenticationError(DeploymentError):
    """The deployment refused the key (401) or forbids this to it (403)."""


class NotFoundError(DeploymentError):
    """The deployment has no such assistant, thread, run or cron (404)."""


class ThreadBusyError(DeploymentError):
    """The thread has a run in flight and `multitask_strategy="reject"` refused another (409)."""


class InvalidRequestError(DeploymentError, ValueError):
    """The request was wrong: found before it was sent, or refused by the deployment."""


class RateLimitedError(DeploymentError):
    """The deployment answered 429 until the deadline.

    Attributes:
        retry_after: Seconds the deployment asked to wait, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = 429,
        url: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, status_code=status_code, url=url)
        self.retry_after = retry_after


class UnreachableError(DeploymentError):
    """No answer from the deployment, or only 5xx, until the deadline.

    Attributes:
        in_doubt: True when the deployment may have acted on a request that must not be sent twice.
        silent: True when no whole answer came in the time there was.
        unreadable: True when something answered, but not as LangGraph's API does.
        retry_after: Seconds the deployment asked to wait, or None.
    """

    in_doubt: bool = False
    silent: bool = False
    unreadable: bool = False
    retry_after: float | None = None


class ScheduleError(LangGraphError, ValueError):
    """A schedule that a Deploy cron cannot express."""


class HeaderPolicyError(LangGraphError, ValueError):
    """A header that must not be sent, or that the graph would not see."""
