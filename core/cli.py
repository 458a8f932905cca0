"""The command line: parsing of arguments and printing, nothing else.

    prefect-langgraph crons list | plan | apply | delete | sweep
    prefect-langgraph resume
    prefect-langgraph approvals list | show | answer
    prefect-langgraph doctor

Exit status: 0 when it is done, 1 from `plan --check` when there are changes to make and from `doctor`
when something fails, 2 when something went wrong, whatever it was: one line says what, and
PREFECT_LANGGRAPH_TRACEBACK=1 shows where. Results go to standard output, everything else to standard
error.
"""

from __future__ import annotations

import codecs
import io
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from prefect_langgraph._version import __version__

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

    from prefect_langgraph.approvals.record import Form
    from prefect_langgraph.blocks.credentials import Credentials
    from prefect_langgraph.crons.models import CronPlan
    from prefect_langgraph.doctor import Check


CHANGES, UNWELL, FAILED, STOPPED = 1, 1, 2, 130
TRACEBACK = "PREFECT_LANGGRAPH_TRACEBACK"

# Parameters of the tasks and flows that are options here.
_PARAMETER = re.compile(r"\b(credentials|dry_run|grace_seconds|owner|prune)=(True\b)?(\w*)")
# What is said to a terminal that cannot show it.
_PLAIN = {"→": "->", "…": "...", "“": '"', "”": '"'}

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
approvals = App(name="approvals", help="What agents ask people, for those who live in a terminal.")
app.command(approvals)
app.register_install_completion_command(help="Install completion for this shell: bash, zsh or fish.")


@approvals.command(name="list")
def list_approvals(*, as_json: Annotated[bool, Parameter(name="--json", negative=())] = False) -> None:
    """List the flow runs that ask a person.

    Parameters
    ----------
    as_json:
        Print JSON, with what is asked.
    """
    found = _open_forms()
    if as_json:
        _print_json(
            [
                {"flow_run_id": str(row.id), "id": form.id, **form.model_dump(mode="json")}
                for row, form in found
            ]
        )
        return
    rows = [
        {
            "form": form.id,
            "flow run": str(row.id),
            "name": row.name,
            "questions": len(form.questions),
            "first": form.questions[0].title,
            "deadline": _moment(form.deadline),
        }
        for row, form in found
    ]
    _print_table(f"{len(rows)} waiting for a person", rows)


@approvals.command(name="show")
def show_approval(form: str) -> None:
    """Show what a form asks, and its fields.

    Parameters
    ----------
    form:
        Its id, as `approvals list` has it, or the id or name of the flow run that asks.
    """
    from prefect_langgraph.texts import visible

    _, found = _form_of(form)
    lines = [found.page, "", "Fields, for --set:"]
    for field in found.fields:
        choices = f": {' | '.join(field.choices)}" if field.choices else ""
        lines.append(visible(f"  {field.name}{choices}  ({field.title})"))
    lines += ["", f"To answer: prefect-langgraph approvals answer {found.id} --by NAME ..."]
    _print("\n".join(lines) + "\n")


@approvals.command(name="answer")
def answer_approval(
    form: str,
    *,
    by: str,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative=(), show_default=False)] = (),
    decision: str | None = None,
) -> int:
    """Answer a form, and have its flow run go on.

    Parameters
    ----------
    form:
        The id of the form that `show` showed: the flow run may ask something else by now.
    by:
        Your name, which is kept as stated.
    set_:
        FIELD=VALUE, for each field that `show` names. What is not set is left open.
    decision:
        The decision on every question that offers it and is not set, such as approve.
    """
    from prefect_langgraph.approvals.asking import answer_form
    from prefect_langgraph.errors import InvalidRequestError
    from prefect_langgraph.transport.loop import io_loop

    if not by.strip():
        raise InvalidRequestError("--by: give your name.")
    row, found = _form_of(form, by_flow_run=False)
    values = _values_of(found, set_, decision) | {found.name_field: by}
    refused = io_loop().run(answer_form, row.id, found, values)
    if refused is not None:
        print(f"error: {refused}", file=sys.stderr)  # noqa: T201
        return FAILED
    _print(f"Answered; {row.name} goes on.\n")
    return 0


def _values_of(form: Form, given: Sequence[str], decision: str | None) -> dict[str, str]:
    """The values of a form's fields, from what was given on the command line."""
    from prefect_langgraph.approvals.form import ANSWER, left_open
    from prefect_langgraph.approvals.replies import LEAVE
    from prefect_langgraph.errors import InvalidRequestError

    values = left_open(form.questions)
    decisions = {field.name: field.choices for field in form.fields if field.holds == "decision"}
    if decision is not None:
        offering = [name for name, choices in decisions.items() if decision in choices]
        if not offering:
            raise InvalidRequestError(f"--decision {decision}: no question offers it; see `show`.")
        values |= dict.fromkeys(offering, decision)
    set_: dict[str, str] = {}
    for one in given:
        name, equals, set_[name] = one.partition("=")
        if not equals or name not in values:
            known = ", ".join(values)
            raise InvalidRequestError(f"--set {name}: give FIELD=VALUE, with one of {known}.")
    values |= set_
    for name in set_:
        about = f"{name.partition('_')[0]}_decision"
        if about in set_ or values.get(about) != LEAVE:
            continue
        if ANSWER not in decisions[about]:
            raise InvalidRequestError(f"--set {name}: without a decision, {about}, it is not sent.")
        values[about] = ANSWER
    return values


def _open_forms() -> list[tuple[FlowRun, Form]]:
    from prefect.client.orchestration import get_client

    from prefect_langgraph.approvals.asking import open_forms
    from prefect_langgraph.transport.loop import io_loop

    async def ask() -> list[tuple[FlowRun, Form]]:
        async with get_client() as client:
            return await open_forms(client, paused_too=True)

    return io_loop().run(ask)


def _form_of(named: str, *, by_flow_run: bool = True) -> tuple[FlowRun, Form]:
    """The open form of this id, or of this flow run, and its flow run."""
    from prefect_langgraph.errors import InvalidRequestError

    found = _open_forms()
    wanted = named.strip().lower()
    for row, form in found:
        if wanted == form.id:
            return row, form
    hexadecimal = wanted.replace("-", "")
    mine = [(row, form) for row, form in found if named == row.name or hexadecimal == row.id.hex]
    forms = ", ".join(form.id for _, form in mine)
    if mine and not by_flow_run:
        raise InvalidRequestError(
            f"{named} is a flow run, which may ask something else by now: "
            f"read its form with `approvals show`, and answer that: {forms}."
        )
    if len(mine) > 1:
        raise InvalidRequestError(
            f"{len(mine)} flow runs have the name {named}: name the form: {forms}."
        )
    if mine:
        return mine[0]
    raise InvalidRequestError(f"Nobody is asked by {named!r}: see `approvals list`.")


@app.command
def resume(
    *,
    every: float = 5.0,
    credentials: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    dry_run: Annotated[bool, Parameter(negative=())] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """Resume suspended flow runs whose runs have ended, again and again, until SIGTERM or Ctrl-C.

    Goes on through outages of either server. Does what the flow `langgraph-resume` does, without a
    process and a flow run for each pass.

    Parameters
    ----------
    every:
        Seconds between two passes.
    credentials:
        Only flow runs that wait on this block's deployment; may be given several times.
    dry_run:
        Say once who waits and who is due, and touch nothing.
    as_json:
        Print JSON, with --dry-run.
    """
    from prefect_langgraph.arguments import check_positive
    from prefect_langgraph.flows.resume import resumer_of, sentence
    from prefect_langgraph.flows.resume_loop import ResumeLoop
    from prefect_langgraph.transport.loop import io_loop

    check_positive("every", every)
    names = list(credentials) or None
    if not dry_run:
        print(f"Resuming every {every:g} s", flush=True)  # noqa: T201
        ResumeLoop(names, every, lambda line: print(line, flush=True)).run()  # noqa: T201
        print("Stopped", flush=True)  # noqa: T201
        return 0
    report = io_loop().run(resumer_of(names, dry_run=True).one_pass)
    if as_json:
        _print_json(report.model_dump(mode="json"))
    else:
        rows = [
            {
                "flow run": entry.flow_run_name or entry.flow_run_id,
                "action": entry.action,
                "reason": entry.reason,
                "deadline": _moment(entry.deadline),
            }
            for entry in report.entries
        ]
        _print_table(" ".join([sentence(report), *report.failures]), rows)
    return FAILED if report.failures else 0


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
        from pydantic import ValidationError

        from prefect_langgraph.blocks.credentials import LangGraphCredentials
        from prefect_langgraph.errors import InvalidRequestError

        if sum((self.credentials is not None, self.url is not None, self.from_env)) > 1:
            raise InvalidRequestError("Give one of --credentials, --url and --from-env.")
        try:
            if self.url is not None:
                return LangGraphCredentials(url=self.url)
            return LangGraphCredentials.from_env() if self.from_env else self.credentials
        except ValidationError as error:
            # Only what is wrong: what was given may be a secret.
            said = "; ".join(str(found["msg"]) for found in error.errors(include_input=False))
            raise InvalidRequestError(said) from None


AsJson = Annotated[bool, Parameter(name="--json", negative=())]
Flag = Annotated[bool, Parameter(negative=())]


@app.command
def doctor(
    *,
    credentials: Annotated[str | None, Parameter(name=("--credentials", "--block"))] = None,
    url: str | None = None,
    from_env: Flag = False,
    langgraph_json: Path | None = None,
    as_json: AsJson = False,
) -> int:
    """Find out what is wrong between this machine and a deployment, and what to do about it.

    The exit status is 0 when everything works, also with warnings, and 1 when something fails.

    Parameters
    ----------
    credentials:
        The name of a saved LangGraphCredentials block; "default" when nothing is given.
    url:
        The deployment's address, for one that asks for no key.
    from_env:
        Take address and key from LANGGRAPH_API_URL and LANGGRAPH_API_KEY.
    langgraph_json:
        The server's configuration: tells whether the server follows it, and what is doubtful in it.
    as_json:
        Print JSON.
    """
    from prefect_langgraph.blocks.credentials import resolve
    from prefect_langgraph.doctor import check_prefect, examine
    from prefect_langgraph.headers import HeaderPolicy
    from prefect_langgraph.transport.loop import io_loop

    chosen = Where(credentials, url, from_env).resolve()
    policy = HeaderPolicy.from_langgraph_json(langgraph_json) if langgraph_json is not None else None

    async def checks() -> list[Check]:
        if chosen is None or isinstance(chosen, str):
            prefect = await check_prefect()
            if prefect.status == "fail":
                # It has the block, so nothing else is known.
                return [prefect]
        return await examine(await resolve(chosen), policy=policy)

    found = io_loop().run(checks)
    if as_json:
        _print_json([check.model_dump() for check in found])
    else:
        _print("".join(f"{' '.join(str(check).split(chr(10)))}\n" for check in found))
    return UNWELL if any(check.status == "fail" for check in found) else 0


@crons.command(name="list")
def list_crons(
    *,
    assistant: str | None = None,
    owner: str | None = None,
    where: Where | None = None,
    as_json: AsJson = False,
) -> int:
    """Show the crons of a deployment.

    Parameters
    ----------
    assistant:
        Only those of this assistant, by its id, or of all assistants of this graph.
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
    """Show what would change to make an owner's crons match a file. Changes nothing.

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
    """Make an owner's crons match a file.

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
    """Delete crons. It is no error if one does not exist any more.

    Parameters
    ----------
    cron_ids:
        Their ids, as `list` shows them.
    as_json:
        Print JSON.
    """
    from prefect_langgraph.errors import InvalidRequestError
    from prefect_langgraph.logs import counted
    from prefect_langgraph.tasks.crons import delete_crons
    from prefect_langgraph.transport.loop import io_loop

    if not cron_ids:
        raise InvalidRequestError("Give the ids of the crons to delete; `crons list` shows them.")
    # The same id twice is one cron.
    cron_ids = tuple(dict.fromkeys(cron_ids))
    deleted = io_loop().run(delete_crons, cron_ids, credentials=(where or Where()).resolve())
    rows = [
        {"cron": cron_id, "was": "deleted" if cron_id in deleted else "gone already"}
        for cron_id in cron_ids
    ]
    title = f"{counted(len(deleted), 'cron')} deleted"
    _print_json(rows) if as_json else _print_table(title, rows)
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

    # Of a flow that fails Prefect logs a traceback; the line that main() writes says it.
    logging.getLogger("prefect.flow_runs").addFilter(_without_traceback)
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
    _print(json.dumps(value, indent=2) + "\n")


def _print_table(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from prefect_langgraph.texts import visible

    # In a file or a pipe there is no edge to wrap at.
    console = Console() if sys.stdout.isatty() else Console(width=10_000)
    with console.capture() as shown:
        if rows:
            table = Table(*(str(name) for name in rows[0]))
            for row in rows:
                # As text: a name may hold what rich would take for markup.
                table.add_row(*(Text(visible(str(value))) for value in row.values()))
            needed = console.measure(table, options=console.options.update(max_width=10_000)).maximum
            if needed <= console.width:
                console.print(table)
            else:
                for line in _one_below_the_other(rows):
                    console.print(Text(line), soft_wrap=True)
        console.print(Text(title))
    _print(shown.get())


def _one_below_the_other(rows: Sequence[Mapping[str, object]]) -> Iterator[str]:
    """The lines of a table that is too wide: not cut off, since ids must be copied whole."""
    width = max(len(name) for name in rows[0])
    for row in rows:
        yield from (f"{name:<{width}}  {value}" for name, value in row.items() if str(value))
        yield ""


def _print(text: str) -> None:
    """Write to standard output; a reader that stops reading, such as `head`, is not an error."""
    try:
        print(text, end="", flush=True)  # noqa: T201
    except BrokenPipeError:
        # What is left goes nowhere, or Python would complain when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _moment(value: Any) -> str:
    return value.isoformat(timespec="seconds") if value is not None else "never"


def _belonging(owner: str | None, name: str | None, flow_run_id: str | None) -> str:
    if owner is not None:
        return f"{owner}: {name}"
    return f"flow run {flow_run_id}" if flow_run_id is not None else "nobody"


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = record.exc_text = None
    return True


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that a terminal cannot show by plain ones."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    said = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in said), error.end


codecs.register_error("prefect_langgraph_plain", _plain)


# What went wrong ----------------------------------------------------------------------------------


def _in_our_words(message: str) -> str:
    """A message of the tasks, with options for parameters, on one line."""

    def option(found: re.Match[str]) -> str:
        name, value = f"--{found[1].replace('_', '-')}", found[3]
        return f"{name}={value}" if value else name

    message = message.replace("url= to from_env", "--url")
    return " ".join(_PARAMETER.sub(option, message).split())


def _said(error: Exception) -> str:
    """What went wrong, in one line and without the given values."""
    from prefect_langgraph.doctor import check_prefect
    from prefect_langgraph.errors import LangGraphError
    from prefect_langgraph.transport.loop import io_loop

    if isinstance(error, LangGraphError):
        return _in_our_words(" ".join([error.message, *getattr(error, "__notes__", [])]))
    # Prefect has no error of its own for an answer that it does not understand.
    prefect = io_loop().run(check_prefect)
    if prefect.status == "fail":
        return f"{prefect.message}. {prefect.advice}"
    return (
        f"{type(error).__name__}: not foreseen, a fault of prefect-langgraph or an answer of a server "
        f"that it does not understand. {TRACEBACK}=1 shows where."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="prefect_langgraph_plain")
    try:
        status = app(list(arguments) if arguments is not None else None)
    except CycloptsError:
        sys.exit(FAILED)  # cyclopts has said why
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and is no "changes"
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        print(f"error: {_said(error)}", file=sys.stderr)  # noqa: T201
        sys.exit(FAILED)
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
