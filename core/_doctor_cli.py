"""The command `doctor`: parsing of arguments and printing, nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from prefect_langgraph.doctor import Check

UNWELL = 1


def doctor(
    *,
    block: str | None = None,
    url: str | None = None,
    langgraph_json: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """Say what is wrong between here and a deployment, and what to do about it.

    The exit status is 0 when everything works, also with warnings, and 1 when something fails.

    Parameters
    ----------
    block:
        The name of a saved LangGraphCredentials block; "default" when nothing is given.
    url:
        The deployment's address, for one that asks for no key.
    langgraph_json:
        The server's configuration: tells whether the server follows it, and what is doubtful in it.
    as_json:
        Print JSON.
    """
    from prefect_langgraph._loop import io_loop
    from prefect_langgraph.blocks.credentials import LangGraphCredentials, resolve
    from prefect_langgraph.doctor import examine
    from prefect_langgraph.errors import InvalidRequestError
    from prefect_langgraph.headers import HeaderPolicy

    if block is not None and url is not None:
        raise InvalidRequestError("Give one of --block and --url.")
    policy = HeaderPolicy.from_langgraph_json(langgraph_json) if langgraph_json is not None else None

    async def checks() -> list[Check]:
        chosen = LangGraphCredentials(url=url) if url is not None else block
        return await examine(await resolve(chosen), policy=policy)

    found = io_loop().run(checks)
    if as_json:
        print(json.dumps([check.model_dump() for check in found], indent=2))  # noqa: T201
    else:
        for check in found:
            print(check)  # noqa: T201
    return UNWELL if any(check.status == "fail" for check in found) else 0
