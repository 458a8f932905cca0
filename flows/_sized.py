"""A flow that measures its parameters before Prefect is asked to store them.

Prefect refuses flow runs with large parameters, and the text of its refusal holds them all: every input
would be in the error, and in whatever log that reaches.
"""

# No annotations from __future__: `.serve()` pickles a flow without the names of its annotations.

import inspect
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from prefect import Flow
from prefect.settings import get_current_settings

from prefect_langgraph.arguments import ONE_PER_RUN
from prefect_langgraph.errors import InvalidRequestError

P = ParamSpec("P")
R = TypeVar("R")


class SizedFlow(Flow[P, R]):
    """A flow with `inputs`, which may be too large for Prefect."""

    if not TYPE_CHECKING:  # the signatures are Flow's own

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            _check_size(self, args, kwargs)
            return super().__call__(*args, **kwargs)

        def with_options(self, *args: Any, **kwargs: Any) -> Any:
            # Prefect builds a plain Flow here.
            other = object.__new__(type(self))
            other.__dict__.update(super().with_options(*args, **kwargs).__dict__)
            return other


def sized_flow(**options: Any) -> Callable[[Callable[P, R]], SizedFlow[P, R]]:
    """`@flow` for a flow that measures its parameters."""

    def decorate(function: Callable[P, R]) -> SizedFlow[P, R]:
        return SizedFlow(function, **options)

    return decorate


def _check_size(flow: Flow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    limit = get_current_settings().server.api.max_parameter_size
    try:
        given = inspect.signature(flow.fn).bind(*args, **kwargs).arguments
    except TypeError:
        return  # for Prefect to refuse
    if isinstance(given.get("inputs"), Iterator):
        # It can be read once only, and the flow would find it empty: a success without a run.
        raise InvalidRequestError(ONE_PER_RUN)
    if limit <= 0 or not given.get("inputs"):
        return
    # As Prefect's server measures them.
    size = len(json.dumps(flow.serialize_parameters(given), separators=(",", ":")))
    if size > limit:
        raise InvalidRequestError(
            f"The parameters are {size / 1024:,.0f} KB as JSON, and Prefect stores at most "
            f"{limit / 1024:,.0f} KB with a flow run. Give the inputs as a file with input_path=, or "
            "use start_runs and join_runs in a flow of your own."
        )
