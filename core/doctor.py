"""What is wrong between here and a deployment, and what to do about it.

    checks = asyncio.run(examine(LangGraphCredentials.load("default").connection()))

Every check is a question to the real server, or to Prefect, and changes nothing that lasts: to see
which headers arrive, a run is put off for a day, looked at and deleted with its thread.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Any, Literal, TypeVar

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE

from prefect_langgraph.errors import AuthenticationError, DeploymentError, LangGraphError
from prefect_langgraph.headers import HeaderPolicy
from prefect_langgraph.logs import counted
from prefect_langgraph.models import Model
from prefect_langgraph.ownership.owner import prefect_address, prefect_api
from prefect_langgraph.ownership.pruning import Pruner
from prefect_langgraph.suspension.suspended import (
    RESUMER_MINUTES,
    asks_a_person,
    resumer_seen,
    suspended_by_us,
    suspended_flow_runs,
)
from prefect_langgraph.transport.connection import Connection
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.deployment import Deployment

T = TypeVar("T")

CheckStatus = Literal["ok", "warn", "fail"]

# The oldest langgraph-sdk that this package is tested with; a test holds it against pyproject.toml.
OLDEST_SDK = (0, 4, 14)
# The header that is sent to see whether it arrives, beside those of the credentials.
PROBE = "x-prefect-langgraph-doctor"
# How long since its end what a flow run owns is not called left behind; as for the sweep.
GRACE_SECONDS = 300.0
_SECONDS, _PATIENCE_SECONDS, _PREFECT_SECONDS = 20.0, 3.0, 10.0
_NOT_LANGGRAPH = "Check that the url is a LangGraph deployment's, and what is between."
_DAY = 86_400
_CLOCK_WARN, _CLOCK_FAIL = 5.0, 60.0
_SHOWN = 8
_PATHS = {
    "batches of runs": "/runs/batch",
    "deleting threads together": "/threads/prune",
    "streams that can be joined": "/threads/{thread_id}/runs/{run_id}/stream",
    "crons": "/runs/crons",
}


class Check(Model):
    """The result of one check.

    Attributes:
        name: What was checked.
        status: "ok", "warn" for something that works and may surprise, "fail" for something that will
            not work.
        message: What was found, without secrets and header values.
        advice: What to do, or None when it is ok.
    """

    name: str
    status: CheckStatus
    message: str
    advice: str | None = None

    def __str__(self) -> str:
        advice = f" → {self.advice}" if self.advice else ""
        return f"{self.status:<4}  {self.name}: {self.message}{advice}"


@dataclass
class Examination:
    """The checks, made in order.

    Args:
        connection: How to reach the deployment.
        policy: The header policy of the server's own configuration, where that is known.
    """

    connection: Connection
    policy: HeaderPolicy | None = None
    checks: list[Check] = field(default_factory=list)

    async def run(self) -> list[Check]:
        """Make every check that can be made."""
        self._deployment = Deployment(replace(self.connection, patience_seconds=_PATIENCE_SECONDS))
        self._deadline = Deadline.after(_SECONDS)
        try:
            self._check_sdk()
            prefect = await check_prefect()
            self.checks.append(prefect)
            if self.policy is not None:
                self._check_policy(self.policy)
            if await self._guarded("reachable", self._check_reachable):
                info = await self._guarded("server", self._check_server) or {}
                assistants = await self._guarded("key", self._check_key_and_assistants)
                if assistants is not None:
                    await self._guarded("crons", lambda: self._check_crons(info))
                    await self._guarded("headers", lambda: self._check_headers(assistants))
                    if prefect.status != "fail":
                        await self._guarded("left behind", self._check_left_behind)
                        await self._guarded("resumer", self._check_resumer)
        finally:
            await self._deployment.client.http.client.aclose()
        return self.checks

    async def _guarded(self, name: str, ask: Callable[[], Awaitable[T]]) -> T | None:
        """Make one check; an unexpected error is a finding too."""
        try:
            return await ask()
        except Exception as error:  # noqa: BLE001 - told as what it is, and the others are still asked
            self._note(
                name,
                "fail",
                f"{self.connection.url} answers in a way that is not understood "
                f"({type(error).__name__})",
                _NOT_LANGGRAPH,
            )
            return None

    def _note(self, name: str, status: CheckStatus, message: str, advice: str | None = None) -> None:
        self.checks.append(Check(name=name, status=status, message=message, advice=advice))

    async def _get(self, path: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            response = await self._deployment.client.http.client.get(path)
            response.raise_for_status()
            return response

        return await self._deployment.send(ask, doing=f"ask for {path}", deadline=self._deadline)

    # -- here ------------------------------------------------------------------------------------

    def _check_sdk(self) -> None:
        installed = version("langgraph-sdk")
        if numbers_of(installed) >= OLDEST_SDK:
            self._note("sdk", "ok", f"langgraph-sdk {installed}")
        else:
            oldest = ".".join(map(str, OLDEST_SDK))
            self._note(
                "sdk",
                "fail",
                f"langgraph-sdk {installed} is older than {oldest}",
                f'pip install "langgraph-sdk>={oldest}"',
            )

    def _check_policy(self, policy: HeaderPolicy) -> None:
        found = policy.lint()
        for warning in found:
            self._note("langgraph.json", "warn", warning.message, "Change http.configurable_headers.")
        if not found:
            self._note("langgraph.json", "ok", "nothing doubtful about its header patterns")

    # -- the server --------------------------------------------------------------------------------

    async def _check_reachable(self) -> bool:
        before = datetime.now(UTC)
        try:
            response = await self._get("/ok")
        except AuthenticationError:
            self._note("reachable", "ok", f"{self.connection.url} answers, and asks who is there")
            return True
        except DeploymentError as error:
            self._note(
                "reachable",
                "fail",
                error.message,
                "Check url, network and proxy, and that the deployment runs.",
            )
            return False
        if isinstance(_json(response), Mapping) and _json(response).get("ok") is True:
            self._note("reachable", "ok", f"{self.connection.url} answers")
        else:
            self._note(
                "reachable",
                "fail",
                f"{self.connection.url} answers /ok with something else than LangGraph's API does",
                _NOT_LANGGRAPH,
            )
        self._check_clock(response.headers.get("date"), before, datetime.now(UTC))
        return True

    def _check_clock(self, date: str | None, before: datetime, after: datetime) -> None:
        theirs = _date(date)
        if theirs is None:
            said = "tells no time" if date is None else "tells its time in a way that cannot be read"
            self._note("clock", "warn", f"the server {said}", "Compare its clock by hand.")
            return
        off = skew(theirs, before, after)
        if abs(off) <= _CLOCK_WARN:
            self._note("clock", "ok", "agrees with the server's")
            return
        self._note(
            "clock",
            "fail" if abs(off) > _CLOCK_FAIL else "warn",
            f"the server's clock is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} this one",
            "Set both by NTP: crons, end times and the sweep's grace go by clocks.",
        )

    async def _check_server(self) -> Mapping[str, Any]:
        try:
            info = _json(await self._get("/info"))
        except DeploymentError:
            info = None
        if not isinstance(info, Mapping) or not isinstance(info.get("version"), str):
            self._note(
                "server",
                "warn",
                "it does not tell its version (/info)",
                "Nothing, if that is turned off on purpose.",
            )
            return {}
        library = info.get("langgraph_py_version")
        langgraph = f", langgraph {library}" if library else ""
        self._note("server", "ok", f"LangGraph API {info['version']}{langgraph}")
        await self._check_features()
        return info

    async def _check_features(self) -> None:
        try:
            described = _json(await self._get("/openapi.json"))
        except DeploymentError:
            return
        paths = described.get("paths") if isinstance(described, Mapping) else None
        if not isinstance(paths, Mapping):
            return
        missing = [what for what, path in _PATHS.items() if path not in paths]
        if missing:
            self._note(
                "features",
                "warn",
                f"the server lacks {', '.join(missing)}",
                "Upgrade it; until then the slow way is taken where there is one.",
            )
        else:
            self._note("features", "ok", ", ".join(_PATHS))

    async def _check_key_and_assistants(self) -> Sequence[Mapping[str, Any]] | None:
        assistants = self._deployment.client.assistants
        try:
            found: Any = await self._deployment.send(
                lambda: assistants.search(limit=1000),
                doing="ask for assistants",
                deadline=self._deadline,
            )
        except AuthenticationError as error:
            what = "refuses the key" if self.connection.api_key else "asks for a key"
            self._note(
                "key",
                "fail",
                f"the server {what} ({error.status_code})",
                "Set api_key, or the headers that its gateway or auth handler asks for, in the block.",
            )
            return None
        except DeploymentError as error:
            self._note("key", "fail", error.message, _NOT_LANGGRAPH)
            return None
        if not _are_assistants(found):
            self._note(
                "assistants",
                "fail",
                f"{self.connection.url} was asked for assistants, and its answer is no list of them",
                _NOT_LANGGRAPH,
            )
            return None
        with_key = self.connection.api_key is not None
        self._note("key", "ok", "accepted" if with_key else "none given, and none asked for")
        if not found:
            self._note(
                "assistants", "warn", "there are none", "Deploy a graph, or check the key's tenant."
            )
            return []
        graphs = sorted({str(assistant["graph_id"]) for assistant in found})
        shown = ", ".join(graphs[:_SHOWN]) + (", …" if len(graphs) > _SHOWN else "")
        self._note("assistants", "ok", f"{len(found)} of {len(graphs)} graphs: {shown}")
        return list(found)

    async def _check_crons(self, info: Mapping[str, Any]) -> None:
        crons = self._deployment.client.crons
        flags = info.get("flags")
        if isinstance(flags, Mapping) and flags.get("crons") is False:
            self._note("crons", "warn", "turned off on this server", "Schedule from Prefect instead.")
            return
        try:
            count: Any = await self._deployment.send(
                crons.count, doing="count crons", deadline=self._deadline
            )
        except DeploymentError as error:
            self._note("crons", "warn", error.message, "Schedule from Prefect instead.")
            return
        if isinstance(count, int):
            self._note("crons", "ok", f"on; there are {count}")
        else:
            self._note(
                "crons", "fail", "the server was asked to count them, and names none", _NOT_LANGGRAPH
            )

    # -- headers -----------------------------------------------------------------------------------

    async def _check_headers(self, assistants: Sequence[Mapping[str, Any]]) -> None:
        if not assistants:
            return
        sent = dict.fromkeys((PROBE, *self._samples()), "1")
        own = [name.lower() for name, _ in self.connection.headers]
        try:
            seen = await self._seen_headers(str(assistants[0]["assistant_id"]), sent)
        except DeploymentError as error:
            self._note("headers", "warn", error.message, "Start a run by hand to see what it is given.")
            return
        if seen is None:
            self._note(
                "headers",
                "warn",
                "the server does not show what a run is given",
                "See by a run's state.",
            )
            return
        if self.policy is not None:
            wrong = [name for name in (*sent, *own) if self.policy.passes(name) != (name in seen)]
            if wrong:
                self._note(
                    "headers",
                    "fail",
                    f"{', '.join(sorted(wrong))}: not treated as langgraph.json says",
                    "Deploy this langgraph.json, or give the one that the server was started with.",
                )
                return
        arrived = sorted({*sent, *own} & seen)
        lost = sorted(set(own) - seen)
        if arrived:
            self._note("headers", "ok", f"graphs are given {', '.join(arrived)}")
        elif not lost:
            self._note("headers", "ok", f"{PROBE} is kept from graphs, as is the default")
        if lost:
            self._note(
                "headers",
                "warn",
                f"graphs are not given the block's {', '.join(lost)}",
                "Fine for what only a gateway or the auth handler reads; else add them to "
                "http.configurable_headers.includes in langgraph.json.",
            )

    def _samples(self) -> list[str]:
        """A name for each pattern of the server's own configuration."""
        if self.policy is None:
            return []
        patterns = (*self.policy.includes, *self.policy.excludes)
        names = {pattern.replace("*", "doctor").lower() for pattern in patterns}
        # Names that others on the way act upon are left alone.
        return sorted(name for name in names if re.fullmatch(r"x-[a-z0-9-]+", name))

    async def _seen_headers(self, assistant_id: str, sent: Mapping[str, str]) -> set[str] | None:
        """The configurable names that a run would get now; None when the server does not tell."""
        threads, runs = self._deployment.client.threads, self._deployment.client.runs
        thread_id = str(uuid.uuid4())

        async def ask() -> Any:
            await threads.create(thread_id=thread_id, if_exists="do_nothing")
            run = await runs.create(
                thread_id, assistant_id, input={}, after_seconds=_DAY, headers=dict(sent)
            )
            given = run.get("kwargs") if isinstance(run, Mapping) else None
            return given.get("config") if isinstance(given, Mapping) else None

        try:
            config = await self._deployment.send(
                ask, doing="see which headers arrive", deadline=self._deadline
            )
        finally:
            await asyncio.shield(self._deployment.part(Pruner).prune([thread_id]))
        if not isinstance(config, Mapping):
            return None
        configurable = config.get("configurable")
        return (
            {str(name).lower() for name in configurable} if isinstance(configurable, Mapping) else set()
        )

    # -- what others left --------------------------------------------------------------------------

    async def _check_left_behind(self) -> None:
        # The sweep imports what would import this module's callers first.
        from prefect_langgraph.cleanup.sweep import Policy, sweep_deployment

        policy = Policy(prefect_api(), GRACE_SECONDS, None, dry_run=True)
        try:
            entries, _ = await sweep_deployment(self._deployment, policy, deadline=self._deadline)
        except (PrefectException, httpx.HTTPError) as error:
            self._note(
                "left behind",
                "fail",
                f"Prefect at {prefect_address()} could not be asked ({type(error).__name__})",
                "Set PREFECT_API_URL to the Prefect whose flows use this deployment.",
            )
            return
        except LangGraphError as error:
            self._note("left behind", "warn", error.message, "Run the sweep with dry_run=True.")
            return
        over = [entry for entry in entries if entry.action == "release"]
        counts = {
            "crons": sum(len(entry.crons) for entry in over),
            "runs": sum(len(entry.runs) for entry in over),
            "threads": sum(len(entry.threads) for entry in over),
        }
        if not any(counts.values()):
            self._note("left behind", "ok", "nothing of flow runs that ended")
            return
        shown = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        self._note(
            "left behind",
            "warn",
            f"{shown} of {len(over)} flow runs that ended",
            "prefect-langgraph crons sweep, and deploy the sweep flow.",
        )

    # -- who waits without a process -----------------------------------------------------------------

    async def _check_resumer(self) -> None:
        """Whether there is a resumer when flow runs are suspended."""
        try:
            async with get_client() as client:
                rows = await suspended_flow_runs(client, suspended_by_us)
                seen = await resumer_seen(client) if rows else None
        except (PrefectException, httpx.HTTPError):
            return  # said by the check before
        if not rows:
            self._note("resumer", "ok", "no flow run is suspended")
            return
        waits = f"{counted(len(rows), 'flow run')} {'is' if len(rows) == 1 else 'are'} suspended"
        if asking := sum(asks_a_person(row.state) for row in rows):
            waits += f", {asking:,} of them for a person"
        if seen is None:
            self._note(
                "resumer",
                "fail",
                f"{waits}, and no resumer made a pass in the last {RESUMER_MINUTES} minutes",
                "Deploy the flow langgraph-resume from prefect.yaml, or run prefect-langgraph resume.",
            )
        else:
            self._note("resumer", "ok", f"{waits}; a resumer made a pass at {seen:%H:%M:%S} UTC")


def _json(response: httpx.Response) -> Any:
    """The body; None when it is not JSON."""
    try:
        return response.json()
    except ValueError:
        return None


def _date(text: str | None) -> datetime | None:
    """The moment in a Date header; None when it has none."""
    try:
        found = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _are_assistants(found: object) -> bool:
    return isinstance(found, list) and all(
        isinstance(row, Mapping) and {"assistant_id", "graph_id"} <= row.keys() for row in found
    )


async def check_prefect() -> Check:
    """Whether Prefect can be asked, by a question of its own kind."""
    if not PREFECT_API_URL.value():
        temporary = PREFECT_SERVER_ALLOW_EPHEMERAL_MODE.value()
        then = (
            "so each process starts a temporary Prefect"
            if temporary
            else "and no temporary Prefect may be started here"
        )
        return Check(
            name="prefect",
            status="warn" if temporary else "fail",
            message=f"PREFECT_API_URL is not set, {then}",
            advice="prefect config set PREFECT_API_URL=... to the Prefect whose flows use this.",
        )
    where = f"Prefect at {prefect_address()}"
    advice = "Check PREFECT_API_URL, and that Prefect runs and can be reached from here."
    try:
        async with asyncio.timeout(_PREFECT_SECONDS), get_client() as client:
            await client.read_flow_runs(limit=1)
    except PrefectHTTPStatusError as error:
        status = error.response.status_code
        found = f"{where} refuses to answer ({status})"
        if status in (401, 403):
            advice = "Set PREFECT_API_KEY for Prefect Cloud, or PREFECT_API_AUTH_STRING."
    except (PrefectException, httpx.HTTPError, OSError) as error:
        found = f"{where} cannot be asked ({type(error).__name__})"
    except Exception as error:  # noqa: BLE001 - of an answer that is none, each client has its own error
        found = f"{where} answers in a way that is not understood ({type(error).__name__})"
    else:
        return Check(name="prefect", status="ok", message=f"{prefect_address()} answers")
    return Check(name="prefect", status="fail", message=found, advice=advice)


async def examine(connection: Connection, *, policy: HeaderPolicy | None = None) -> list[Check]:
    """Check everything about a deployment that can go wrong.

    Args:
        connection: How to reach the deployment: `LangGraphCredentials.connection()`.
        policy: What the server's `langgraph.json` says about headers, to compare with what it does.

    Returns:
        The checks in the order in which they were made. A deployment that is not there has few.

    Example:
        >>> import asyncio
        >>> from prefect_langgraph import LangGraphCredentials
        >>> checks = asyncio.run(examine(LangGraphCredentials.load("default").connection()))
        >>> [check for check in checks if check.status == "fail"]
        []
    """
    return await Examination(connection, policy).run()


def numbers_of(text: str) -> tuple[int, ...]:
    """The release numbers that a version begins with."""
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(number) for number in match[0].split(".")) if match is not None else ()


def skew(theirs: datetime, before: datetime, after: datetime) -> float:
    """Seconds that their clock is ahead of ours; 0 while theirs, told in whole seconds, may be right.

    Args:
        theirs: What they told, at some moment between `before` and `after` by our clock.
        before: Ours when they were asked.
        after: Ours when the answer was there.
    """
    ahead, behind = (theirs - after).total_seconds(), (before - theirs).total_seconds() - 1
    return ahead if ahead > 0 else -behind if behind > 0 else 0.0
