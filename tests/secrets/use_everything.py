"""Uses everything there is with marked secrets, in a process of its own whose traces are searched.

Reads JSON from standard input: the deployment's address, the marks, the beacons and the folders.
Prints and logs what a careless user would: results, blocks, errors and their tracebacks. The last line
is JSON: what was used.

A new public name needs a use in `uses.py`, a new command a call in `commands` here.
"""

from __future__ import annotations

import contextlib
import json
import sys
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from failures import CREATE, Echo, endings, refusals, wrong_blocks, wrong_models
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from tblib import pickling_support
from uses import CREATING, USES, Action, Setup, use_of

import prefect_langgraph as pl
from prefect_langgraph.cli import app, main
from proxy import Proxy, run_proxy

# As Dask does it: from here on errors are pickled with all that hangs on them.
pickling_support.install()


def plant(beacons: Mapping[str, str]) -> None:
    """Leave something to be found in each place, to show that the search looks there."""

    @task(name="beacon")
    def in_task() -> str:
        return beacons["result"]

    @flow(name="beacon", flow_run_name="beacon")
    def planted(parameter: str) -> None:
        get_run_logger().debug("%s", beacons["log"])
        emit_event(
            "secrets.beacon",
            resource={"prefect.resource.id": "secrets.beacon"},
            payload={"beacon": beacons["event"]},
        )
        create_markdown_artifact(beacons["artifact"], key="beacon")
        in_task()
        raise LookupError(beacons["state"])

    with contextlib.suppress(LookupError):
        planted(beacons["parameter"])
    sys.stdout.write(f"{beacons['stdout']}\n")
    sys.stderr.write(f"{beacons['stderr']}\n")


def use_names(setup: Setup) -> list[str]:
    """Use every public name with a deployment that works; those without a use."""
    missing = []

    @flow(name="uses")
    def uses() -> None:
        for name in pl.__all__:
            if (use := use_of(name)) is not None:
                setup.do(name, use(setup, name))
            else:
                missing.append(name)

    uses()
    return missing


def use_refused(setup: Setup, proxy: Proxy, names: Iterable[str], *refused: tuple[str, str]) -> None:
    """Use public names with a deployment that refuses some requests and repeats them."""

    @flow(name="refused uses")
    def uses() -> None:
        for name in names:
            action = USES[name](setup, name)
            for method, path in refused:
                proxy.on(method, path, Echo(422), times=None)
            setup.do(name, action)
            proxy.clear()

    uses()


def fail_in_every_way(setup: Setup, proxied: Setup, proxy: Proxy) -> None:
    """Fail in every way, in tasks and then as a flow run."""
    failures: dict[str, Action] = {
        **wrong_models(setup.marks["model"]),
        **wrong_blocks(setup),
        **endings(setup),
        **refusals(proxied, proxy),
    }

    @flow(name="failures")
    def fails() -> None:
        for name, action in failures.items():
            setup.do(name, action)

    fails()
    # What a failed flow run keeps is not what a failed task run keeps.
    for name in ("graph failed", "422", "password in the address", "no json", "policy"):
        setup.do(name, flow(failures[name], name=name))


def commands(setup: Setup) -> dict[str, list[list[str]]]:
    """Calls of each command, by its words."""
    where = ["--credentials", setup.name]
    crons = [setup.spec().model_dump(mode="json", exclude_none=True)]
    specs = setup.file(json.dumps({"owner": "cli", "crons": crons}))
    broken = setup.file('{"a": ' + json.dumps(setup.input) + " zq")
    bad = f"http://ada:{setup.marks['password']}@localhost:2024"
    return {
        "approvals list": [["approvals", "list"], ["approvals", "list", "--json"]],
        "approvals show": [["approvals", "show", "nobody"]],
        "approvals answer": [["approvals", "answer", "nobody", "--by", "Ada", "--set", "a=b"]],
        "crons list": [
            ["crons", "list", *where],
            ["crons", "list", "--json", *where],
            ["crons", "list", "--url", bad],
            ["crons", "list", "--url", setup.url],
        ],
        "crons plan": [["crons", "plan", specs, *where], ["crons", "plan", broken, *where]],
        "crons apply": [
            ["crons", "apply", specs, *where],
            ["crons", "apply", specs, "--json", *where],
            ["crons", "apply", specs, "--credentials", "nobody"],
        ],
        "crons delete": [["crons", "delete", str(uuid.uuid4()), *where]],
        "crons sweep": [["crons", "sweep", *where, "--dry-run"], ["crons", "sweep", "--json", *where]],
        "doctor": [
            ["doctor", "--block", setup.name],
            ["doctor", "--json", "--block", setup.name],
            ["doctor", "--url", setup.url],
            ["doctor", "--url", bad],
            ["doctor", "--json", "--url", bad],
            ["doctor", "--block", setup.name, "--langgraph-json", broken],
        ],
        "resume": [
            ["resume", "--dry-run", *where],
            ["resume", "--dry-run", "--json", *where],
        ],
    }


def run_commands(setup: Setup) -> list[str]:
    """Call every command; those without a call."""
    calls = commands(setup)
    for arguments in [call for several in calls.values() for call in several]:
        with contextlib.suppress(SystemExit):
            main(arguments)
    return sorted(commands_of(app) - set(calls))


def commands_of(app: Any, prefix: str = "") -> set[str]:
    """The words of every command that there is."""
    found: set[str] = set()
    for name in app:
        if not name.startswith("-"):
            words = f"{prefix} {name}".strip()
            found |= commands_of(app[name], words) or {words}
    return found


def use_everything(told: Mapping[str, Any]) -> dict[str, Any]:
    plant(told["beacons"])
    folder, scratch = Path(told["folder"]), Path(told["scratch"])
    setup = Setup(told["url"], "marked", told["marks"], folder, scratch)
    setup.save()
    missing = use_names(setup)
    with run_proxy(told["url"]) as proxy:
        refused = replace(setup, url=proxy.url, name="refused", went_well=set())
        refused.save()
        # A twin would say the same: both hand one coroutine to one loop.
        use_refused(refused, proxy, USES, ("*", ""))
        # What comes last holds the most, so all that comes before must work.
        half = replace(refused, went_well=set())
        use_refused(half, proxy, CREATING, ("POST", CREATE), ("PATCH", ""))
        failing = replace(refused, went_well=set())
        fail_in_every_way(replace(failing, url=told["url"], name="marked"), failing, proxy)
        missing_calls = run_commands(setup)
        proxy.on("*", "", Echo(422), times=None)
        run_commands(refused)
    return {
        "sent": sorted(name for name, mark in setup.marks.items() if mark in Echo.heard),
        "without use": missing,
        "without call": missing_calls,
        "shown": sorted(setup.shown),
        "went well": sorted(setup.went_well),
        "went well although refused": sorted(refused.went_well),
        "went well although half refused": sorted(half.went_well),
        "went well although failing": sorted(failing.went_well),
    }


@flow(name="the end", log_prints=True)
def the_end() -> None:
    """The last that Prefect hears: when its server has this, it has all that came before."""
    print("the end of all uses")  # noqa: T201
    emit_event("secrets.end", resource={"prefect.resource.id": "secrets.end"})


if __name__ == "__main__":
    # Every flow run would wait up to a second for the end of its heartbeat.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        report = use_everything(json.load(sys.stdin))
        the_end()
    sys.stdout.write(json.dumps(report) + "\n")
