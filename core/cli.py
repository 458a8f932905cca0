"""The command line: parsing of arguments and printing, nothing else.

    prefect-langgraph crons list | plan | apply | delete | sweep
    prefect-langgraph doctor

Exit status: 0 when it is done, 1 from `plan --check` when there are changes to make and from `doctor`
when something fails, 2 when something went wrong. Results go to standard output, everything else to
standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from prefect_langgraph._version import __version__

if TYPE_CHECKING:
    from prefect_langgraph.blocks.credentials import Credentials
    from prefect_langgraph.crons.models import CronPlan
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
    from prefect_langgraph.blocks.credentials import LangGraphCredentials, resolve
    from prefect_langgraph.doctor import examine
    from prefect_langgraph.errors import InvalidRequestError
    from prefect_langgraph.headers import HeaderPolicy
    from prefect_langgraph.transport.loop import io_loop

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


CHANGES, FAILED = 1, 2

app = App(
    name="prefect-langgraph",
    version=__version__,
    help="LangGraph Deploy from Prefect.",
    # main() gives errors in the call their own exit status.
    exit_on_error=False,
    result_action="return_value",
)
crons = App(name="crons", help="The crons of a LangGraph deployment.")
app.command(crons)
app.command(doctor)


@Parameter(name="*")
@dataclass
class Where:
    """Which deployment is meant.

    Attributes:
        credentials: The name of a saved LangGraphCredentials block; "default" when nothing is given.
        url: The deployment's address, for one that asks for no key.
        from_env: Take address and key from LANGGRAPH_API_URL and LANGGRAPH_API_KEY.
    """

    credentials: str | None = None
    url: str | None = None
    from_env: Annotated[bool, Parameter(negative=())] = False

    def resolve(self) -> Credentials:
        """What the tasks take as credentials."""
        from prefect_langgraph.blocks.credentials import LangGraphCredentials
        from prefect_langgraph.errors import InvalidRequestError

        if sum((self.credentials is not None, self.url is not None, self.from_env)) > 1:
            raise InvalidRequestError("Give one of --credentials, --url and --from-env.")
        if self.url is not None:
            return LangGraphCredentials(url=self.url)
        return LangGraphCredentials.from_env() if self.from_env else self.credentials


AsJson = Annotated[bool, Parameter(name="--json", negative=())]
Flag = Annotated[bool, Parameter(negative=())]


@crons.command(name="list")
def list_crons(
    *,
    assistant: str | None = None,
    owner: str | None = None,
    where: Where | None = None,
    as_json: AsJson = False,
) -> int:
    """Show the crons that are there.

    Parameters
    ----------
    assistant:
        Only those of this assistant or graph.
    owner:
        Only those of this owner.
    as_json:
        Print JSON.
    """
    from prefect_langgraph.tasks.crons import find_crons
    from prefect_langgraph.transport.loop import io_loop

    found = io_loop().run(
        find_crons,
        assistant_id=assistant,
        owner=owner,
        credentials=(where or Where()).resolve(),
    )
    if as_json:
        _print_json([cron.model_dump(mode="json") for cron in found])
        return 0
    _print_table(
        f"{len(found)} crons",
        [
            {
                "cron": cron.cron_id,
                "assistant": cron.assistant_id,
                "schedule": cron.schedule,
                "timezone": cron.timezone or "UTC",
                "next": _moment(cron.next_run_date) if cron.enabled else "paused",
                "belongs to": _belonging(cron.owner, cron.name, cron.flow_run_id),
            }
            for cron in found
        ],
    )
    return 0


@crons.command
def plan(
    specs: Path,
    *,
    owner: str | None = None,
    prune: bool = True,
    check: Flag = False,
    where: Where | None = None,
    as_json: AsJson = False,
) -> int:
    """Show what it takes to make an owner's crons what a file says. Changes nothing.

    Parameters
    ----------
    specs:
        A YAML or JSON file: a list of crons, alone or under `crons:` beside `owner:`.
    owner:
        Whose crons these are, where the file does not say.
    prune:
        Whether crons of the owner's that are not in the file go.
    check:
        Exit with status 1 when there are changes to make.
    as_json:
        Print JSON.
    """
    found = _reconcile(specs, owner, prune, where, dry_run=True)
    _print_plan(found, as_json)
    return CHANGES if check and found.has_changes else 0


@crons.command
def apply(
    specs: Path,
    *,
    owner: str | None = None,
    prune: bool = True,
    where: Where | None = None,
    as_json: AsJson = False,
) -> int:
    """Make an owner's crons what a file says.

    Parameters
    ----------
    specs:
        A YAML or JSON file: a list of crons, alone or under `crons:` beside `owner:`.
    owner:
        Whose crons these are, where the file does not say.
    prune:
        Whether crons of the owner's that are not in the file go.
    as_json:
        Print JSON.
    """
    _print_plan(_reconcile(specs, owner, prune, where, dry_run=False), as_json)
    return 0


@crons.command
def delete(*cron_ids: str, where: Where | None = None, as_json: AsJson = False) -> int:
    """Delete crons. One that is gone already is fine.

    Parameters
    ----------
    cron_ids:
        Their ids, as `list` shows them.
    as_json:
        Print JSON.
    """
    from prefect_langgraph.errors import InvalidRequestError
    from prefect_langgraph.tasks.crons import drop_crons
    from prefect_langgraph.transport.loop import io_loop

    if not cron_ids:
        raise InvalidRequestError("Give the ids of the crons to delete; `crons list` shows them.")
    deleted = io_loop().run(drop_crons, cron_ids, credentials=(where or Where()).resolve())
    rows = [
        {"cron": cron_id, "was": "deleted" if cron_id in deleted else "gone already"}
        for cron_id in cron_ids
    ]
    _print_json(rows) if as_json else _print_table(f"{len(deleted)} crons deleted", rows)
    return 0


@crons.command
def sweep(
    *,
    credentials: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    grace_seconds: float = 300.0,
    dry_run: Flag = False,
    as_json: AsJson = False,
) -> int:
    """Release what flow runs left behind: crons, runs and throw-away threads.

    Parameters
    ----------
    credentials:
        The name of a saved LangGraphCredentials block; may be given several times.
    grace_seconds:
        How long after its end a flow run's things are left alone.
    dry_run:
        Say what it would do, and touch nothing.
    as_json:
        Print JSON.
    """
    from prefect_langgraph.flows.sweep import sweep as sweep_flow

    report = sweep_flow(list(credentials) or None, grace_seconds=grace_seconds, dry_run=dry_run)
    if as_json:
        _print_json(report.model_dump(mode="json"))
        return 0
    rows = [
        {
            "flow run": entry.flow_run_name or entry.flow_run_id,
            "action": entry.action,
            "reason": entry.reason,
            "crons": len(entry.crons),
            "runs": len(entry.runs),
            "threads": len(entry.threads),
        }
        for entry in report.entries
    ]
    _print_table("dry run" if dry_run else "swept", rows)
    return 0


def _reconcile(
    specs: Path, owner: str | None, prune: bool, where: Where | None, *, dry_run: bool
) -> CronPlan:
    from prefect_langgraph.tasks.reconcile import reconciled
    from prefect_langgraph.transport.loop import io_loop

    return io_loop().run(
        reconciled,
        specs,
        owner=owner,
        prune=prune,
        dry_run=dry_run,
        credentials=(where or Where()).resolve(),
    )


# Printing -----------------------------------------------------------------------------------------


def _print_plan(found: CronPlan, as_json: bool) -> None:
    if as_json:
        _print_json({**found.model_dump(mode="json"), "has_changes": found.has_changes})
    else:
        _print_table(str(found), found.rows())


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))  # noqa: T201


def _print_table(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # In a file or a pipe there is no edge to wrap at.
    console = Console() if sys.stdout.isatty() else Console(width=10_000)
    if rows:
        table = Table(*(str(name) for name in rows[0]))
        for row in rows:
            # As text: a name may hold what rich would take for markup.
            table.add_row(*(Text(str(value)) for value in row.values()))
        console.print(table)
    console.print(Text(title))


def _moment(value: Any) -> str:
    return value.isoformat(timespec="seconds") if value is not None else "never"


def _belonging(owner: str | None, name: str | None, flow_run_id: str | None) -> str:
    if owner is not None:
        return f"{owner}: {name}"
    return f"flow run {flow_run_id}" if flow_run_id is not None else "nobody"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    from pydantic import ValidationError

    from prefect_langgraph.errors import LangGraphError

    try:
        status = app(list(arguments) if arguments is not None else None)
    except CycloptsError:
        sys.exit(FAILED)  # cyclopts has said why
    except LangGraphError as error:
        notes = getattr(error, "__notes__", [])
        print(f"error: {' '.join([str(error), *notes])}", file=sys.stderr)  # noqa: T201
        sys.exit(FAILED)
    except ValidationError as error:
        # Only what is wrong: what was given may be a secret.
        said = "; ".join(str(found["msg"]) for found in error.errors(include_input=False))
        print(f"error: {said}", file=sys.stderr)  # noqa: T201
        sys.exit(FAILED)
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
