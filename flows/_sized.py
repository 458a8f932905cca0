"""A flow that looks at its parameters before Prefect is asked to store them.

What Prefect cannot store it refuses late, and the text of its refusal holds it all: every input would
be in the error, and in whatever log that reaches.
"""

# No annotations from __future__: `.serve()` pickles a flow without the names of its annotations.

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from prefect import Flow
from prefect.settings import get_current_settings

from prefect_langgraph.arguments import ONE_PER_RUN, check_depth, check_text
from prefect_langgraph.errors import InvalidRequestError

P = ParamSpec("P")
R = TypeVar("R")


class SizedFlow(Flow[P, R]):
    """A flow whose parameters may be too large for Prefect, or nothing that it can store.

    Attributes:
        advice: What to do when they are too large.
    """

    advice: str = ""

    if not TYPE_CHECKING:  # the signatures are Flow's own

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            _check(self, args, kwargs)
            return super().__call__(*args, **kwargs)

        def with_options(self, *args: Any, **kwargs: Any) -> Any:
            # Prefect builds a plain Flow here.
            other = object.__new__(type(self))
            other.__dict__.update(super().with_options(*args, **kwargs).__dict__)
            other.advice = self.advice
            return other


def sized_flow(*, advice: str, **options: Any) -> Callable[[Callable[P, R]], SizedFlow[P, R]]:
    """`@flow` for a flow that looks at its parameters first: see `SizedFlow`."""

    def decorate(function: Callable[P, R]) -> SizedFlow[P, R]:
        made = SizedFlow(function, **options)
        made.advice = advice
        return made

    return decorate


def _check(flow: SizedFlow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    try:
        given = inspect.signature(flow.fn).bind(*args, **kwargs).arguments
    except TypeError:
        return  # for Prefect to refuse
    # What can be read once only the flow would find empty: a success without a run.
    if isinstance(given.get("inputs"), str | bytes | Mapping | Iterator):
        raise InvalidRequestError(ONE_PER_RUN)
    check_depth(given)
    parameters = flow.serialize_parameters(given)
    limit = get_current_settings().server.api.max_parameter_size
    # As Prefect's server measures them.
    size = len(json.dumps(parameters, separators=(",", ":")))
    if 0 < limit < size:
        raise InvalidRequestError(
            f"The parameters are {size / 1024:,.0f} KB as JSON, and Prefect stores at most "
            f"{limit / 1024:,.0f} KB with a flow run. {flow.advice}"
        )
    check_text("The parameters", json.dumps(parameters, ensure_ascii=False))
