"""Uses everything there is with marked secrets, in a process of its own whose traces are searched.

Reads JSON from standard input: the deployment's address and the marks. Prints and logs what a careless
user would: results, blocks, errors and their tracebacks. The last line is JSON: what was played.

A new public task, flow, block or command needs a scenario here: add it to `SCENARIOS` or `COMMANDS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import pickle
import sys
import threading
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect import Flow, Task, flow, get_run_logger
from prefect.exceptions import MissingContextError
from pydantic import SecretStr

import prefect_langgraph as pl
from prefect_langgraph import HeaderPolicy, LangGraphAssistant, LangGraphCredentials
from prefect_langgraph.cli import main
from proxy import Proxy, Response, run_proxy
from proxy._exchange import Exchange

BLOCK = "marked"
YEARLY = "0 0 1 1 *"


def say(*values: Any) -> None:
    """Print it, and log it where there is a run to log for."""
    text = " ".join(map(str, values))
    sys.stdout.write(f"{text}\n")
    with contextlib.suppress(MissingContextError):
        get_run_logger().warning("%s", text)


@dataclass(frozen=True)
class Echo:
    """A server that puts all that it was sent into its refusal."""

    status: int

    async def apply(self, exchange: Exchange) -> None:
        request = exchange.request
        said = {"detail": json.dumps({"headers": request.headers, "body": request.body.decode()})}
        await exchange.answer(Response(self.status, json.dumps(said).encode()))


@dataclass
class Play:
    """What scenarios share."""

    url: str
    marks: Mapping[str, str]
    folder: Path
    raised: set[str] = field(default_factory=set)

    @property
    def input(self) -> dict[str, Any]:
        """An input whose secret no graph gives back."""
        return {"tag": "a", "password": self.marks["input"]}

    @property
    def headers(self) -> dict[str, Any]:
        return {
            "X-Token": self.marks["call_header"],
            "X-Other": SecretStr(self.marks["secret_header"]),
        }

    @property
    def run(self) -> dict[str, Any]:
        """For what makes a run."""
        return {"credentials": BLOCK, "headers": self.headers}

    def block(self, url: str | None = None, **changes: Any) -> LangGraphCredentials:
        given: dict[str, Any] = {
            "api_key": self.marks["key"],
            "headers": {"X-Team": self.marks["block_header"]},
            "patience_seconds": 1.0,
            **changes,
        }
        return LangGraphCredentials(url=url or self.url, **given)

    def show(self, value: Any) -> None:
        """Print it as a careless user would, and pickle it as Prefect does."""
        say(repr(value), str(value))
        if isinstance(value, Exception):
            self.raised.add(type(value).__name__)
            say(repr(vars(value)), getattr(value, "exceptions", ""))
            say("".join(traceback.format_exception(value)))
            (self.folder / f"{uuid.uuid4()}.pickle").write_bytes(pickle.dumps(value))

    def scene(self, play: Callable[[], Any]) -> None:
        """Play a scene, and show what came of it."""
        try:
            self.show(play())
        except Exception as error:  # noqa: BLE001 - what it says is the question
            self.show(error)

    def in_flow(self, name: str, play: Callable[[], Any]) -> None:
        """Play it in a flow run of its own, which ends as it does."""
        self.scene(flow(play, name=name))


def call(name: str, *args: Any, **kwargs: Any) -> Any:
    """Call a public task or flow to its end, whatever its colour."""
    called = getattr(pl, name)(*args, **kwargs)
    if hasattr(called, "__aiter__"):

        async def collect() -> list[Any]:
            return [item async for item in called]

        return asyncio.run(collect())
    if asyncio.iscoroutine(called):
        return asyncio.run(_awaited(called))
    return list(called) if hasattr(called, "__next__") else called


async def _awaited(coroutine: Any) -> Any:
    return await coroutine


Scene = Callable[[Play, str], Any]


def _handle(play: Play, input: Any = None, **options: Any) -> pl.RunHandle:
    return pl.start_run("worker", input or play.input, **play.run, **options)


def _on_thread(play: Play) -> str:
    return pl.create_thread(
        credentials=BLOCK, headers=play.headers, metadata={"m": play.marks["input"]}
    )


def _cron(play: Play) -> pl.CronHandle:
    return pl.create_cron("worker", YEARLY, play.input, credentials=BLOCK)


def _fan_out(play: Play, name: str) -> Any:
    # Prefect keeps a flow's parameters, so an input that is a secret comes from a file.
    path = play.folder.parent / f"{uuid.uuid4()}.inputs.jsonl"
    path.write_text(f"{json.dumps(play.input)}\n" * 3, encoding="utf-8")
    try:
        return call(name, "worker", input_path=str(path), credentials=BLOCK)
    finally:
        path.unlink()


def _temporary_cron(play: Play, name: str) -> Any:
    with getattr(pl, name)("worker", YEARLY, play.input, credentials=BLOCK) as cron:
        say(repr(cron))
        return None


def _with_finalizer(play: Play, name: str) -> Any:
    @pl.with_finalizer(credentials=BLOCK)
    @flow
    def leaves() -> None:
        _handle(play, {"sleep": 30, "password": play.marks["input"]})
        _cron(play)
        raise LookupError("on purpose")

    with contextlib.suppress(LookupError):
        leaves()


def _trigger(play: Play, name: str) -> Any:
    assistant = LangGraphAssistant(credentials=play.block(), assistant_id="worker")
    say(repr(assistant), assistant)
    run = assistant.trigger(play.input)
    say(repr(run), run.handle)
    run.wait_for_completion()
    return run.fetch_result()


def _block(play: Play, name: str) -> Any:
    block = play.block(header_policy=HeaderPolicy(includes=("x-*",)))
    say(repr(block), block, block.connection(), block.model_dump(), block.model_dump_json())
    say(repr(block.get_client()), repr(block.get_sync_client()), LangGraphCredentials.load(BLOCK))


SCENARIOS: dict[str, Scene] = {
    "LangGraphAssistant": _trigger,
    "LangGraphCredentials": _block,
    "LangGraphRun": _trigger,
    "cancel_run": lambda p, n: call(n, _handle(p, {"sleep": 30}), credentials=BLOCK),
    "cancel_runs": lambda p, n: call(n, [_handle(p, {"sleep": 30})], credentials=BLOCK),
    "create_cron": lambda p, n: call(n, "worker", YEARLY, p.input, credentials=BLOCK),
    "create_thread": lambda p, n: call(n, **p.run, metadata=p.input),
    "cron_window": lambda p, n: call(n, "worker", "* * * * *", timedelta(seconds=1), credentials=BLOCK),
    "delete_cron": lambda p, n: call(n, _cron(p), credentials=BLOCK, headers=p.headers),
    "delete_thread": lambda p, n: call(n, _on_thread(p), **p.run),
    "fan_out": _fan_out,
    "get_run": lambda p, n: call(n, _handle(p), credentials=BLOCK),
    "get_thread_state": lambda p, n: call(n, _on_thread(p), **p.run),
    "join_run": lambda p, n: call(n, _handle(p), credentials=BLOCK),
    "join_runs": lambda p, n: call(n, [_handle(p)], credentials=BLOCK),
    "join_stream": lambda p, n: call(
        n, _handle(p, stream_resumable=True, stream_mode="updates"), credentials=BLOCK
    ),
    "reconcile_crons": lambda p, n: call(n, [_spec(p)], owner="secrets", credentials=BLOCK),
    "reconcile_crons_flow": lambda p, n: call(n, [], owner="secrets", credentials=BLOCK),
    "run_on_thread": lambda p, n: call(n, _on_thread(p), "worker", p.input, **p.run),
    "run_stateless": lambda p, n: call(n, "worker", p.input, **p.run),
    "search_crons": lambda p, n: call(n, credentials=BLOCK, headers=p.headers),
    "start_run": lambda p, n: call(n, "worker", p.input, **p.run),
    "start_runs": lambda p, n: call(n, "worker", [p.input] * 3, **p.run),
    "stream_run": lambda p, n: call(n, "worker", p.input, stream_mode="updates", **p.run),
    "stream_to_logs": lambda p, n: call(n, "worker", p.input, **p.run),
    "sweep": lambda p, n: call(n, BLOCK, grace_seconds=0),
    "temporary_cron": _temporary_cron,
    "update_cron": lambda p, n: call(n, _cron(p), input=p.input, credentials=BLOCK),
    "update_thread_state": lambda p, n: call(
        n, _used_thread(p), {"result": p.marks["input"]}, as_node="finish", **p.run
    ),
    "with_finalizer": _with_finalizer,
}


def _spec(play: Play) -> Any:
    return pl.CronSpec(
        name="yearly", assistant_id="worker", schedule=YEARLY, input={"password": play.marks["input"]}
    )


def _used_thread(play: Play) -> str:
    thread_id = _on_thread(play)
    pl.run_on_thread(thread_id, "worker", play.input, **play.run)
    return thread_id


def _failures(play: Play, proxy: Proxy) -> dict[str, Callable[[], Any]]:
    """Ways to fail, by what they show. Errors of all kinds must come up."""
    through = play.block(proxy.url)
    asked, headers = play.input, play.headers

    def refused(status: int, method: str = "POST", path: str = "/runs$") -> Callable[[], Any]:
        def scene() -> Any:
            proxy.clear()
            proxy.on(method, path, Echo(status), times=None)
            return pl.run_stateless("worker", asked, credentials=through, headers=headers)

        return scene

    def refused_batch() -> Any:
        proxy.clear()
        proxy.on("POST", "/runs/batch", Echo(422), times=None)
        return pl.start_runs("worker", [asked] * 3, credentials=through, headers=headers)

    def refused_update() -> Any:
        proxy.clear()
        proxy.on("POST", "/state$", Echo(400), times=None)
        thread_id = pl.create_thread(credentials=through)
        return pl.update_thread_state(
            thread_id, {"result": play.marks["input"]}, credentials=through, headers=headers
        )

    def refused_cron() -> Any:
        proxy.clear()
        proxy.on("POST", "/runs/crons", Echo(422), times=None)
        return pl.create_cron("worker", YEARLY, asked, credentials=through)

    def busy() -> Any:
        handle = _handle(play, {"sleep": 30}, thread_id=_on_thread(play))
        return pl.run_on_thread(
            handle.thread_id, "worker", asked, multitask_strategy="reject", **play.run
        )

    def interrupted() -> Any:
        return pl.run_on_thread(_on_thread(play), "worker", {**asked, "interrupts": 1}, **play.run)

    def lost() -> Any:
        handle = _handle(play, thread_id=_on_thread(play))
        pl.delete_thread(handle.thread_id, credentials=BLOCK)
        return pl.join_run(handle, credentials=BLOCK)

    def cancelled() -> Any:
        handle = _handle(play, {**asked, "sleep": 30}, thread_id=_on_thread(play))
        threading.Timer(0.5, lambda: pl.cancel_run.fn(handle, credentials=BLOCK)).start()
        return pl.join_run(handle, credentials=BLOCK)

    def broken() -> Any:
        handle = _handle(play, thread_id=_on_thread(play))
        pl.join_run(handle, credentials=BLOCK)
        return list(pl.join_stream(handle, credentials=BLOCK))

    def policed() -> Any:
        strict = play.block(header_policy=HeaderPolicy(includes=("x-nothing",)))
        return pl.run_stateless("worker", asked, credentials=strict, headers=headers)

    away = play.block("http://127.0.0.1:9")
    run = pl.run_stateless.with_options(retries=0)
    fails = {**asked, "fail": "no luck"}
    return {
        "400": refused(400),
        "403": refused(403),
        "404": refused(404),
        "422": refused(422),
        "429": lambda: _without_retries(refused(429)),
        "500": lambda: _without_retries(refused(500)),
        "refused batch": refused_batch,
        "refused update": refused_update,
        "refused cron": refused_cron,
        "wrong key": lambda: run(
            "worker", asked, credentials=play.block(api_key=play.marks["wrong_key"])
        ),
        "away": lambda: run("worker", asked, credentials=away, headers=headers),
        "assistant unknown": lambda: run("nobody", asked, **play.run),
        "graph failed": lambda: run("worker", fails, **play.run),
        "fan out failed": lambda: pl.join_runs([_handle(play, fails)], credentials=BLOCK),
        "timed out": lambda: run("worker", {**asked, "sleep": 60}, **play.run),
        "deadline": lambda: run("worker", {**asked, "sleep": 60}, max_wait_seconds=1, **play.run),
        "busy": busy,
        "interrupted": interrupted,
        "lost": lost,
        "cancelled": cancelled,
        "stream broken": broken,
        "policy": policed,
        "no json": lambda: run("worker", {"a": asked, "b": object()}, **play.run),
        "header with a line break": lambda: run(
            "worker", asked, credentials=BLOCK, headers={"X-A": f"a\n{play.marks['call_header']}"}
        ),
        "header that is a value": lambda: run(
            "worker", asked, credentials=BLOCK, headers={f"{play.marks['call_header']} ": "x"}
        ),
        "key as a header": lambda: play.block(headers={"X-Api-Key": play.marks["key"]}),
        "schedule": lambda: pl.create_cron("worker", "not a schedule", asked, credentials=BLOCK),
        "no such block": lambda: run("worker", asked, credentials="nobody", headers=headers),
        "password in the address": lambda: LangGraphCredentials(
            url=f"http://ada:{play.marks['password']}@localhost:2024"
        ),
    }


def _without_retries(scene: Callable[[], Any]) -> Any:
    kept = pl.run_stateless
    pl.run_stateless = kept.with_options(retries=0)  # type: ignore[misc]
    try:
        return scene()
    finally:
        pl.run_stateless = kept  # type: ignore[misc]


def _commands(play: Play) -> dict[str, list[list[str]]]:
    """Calls of each command, by its words."""
    where = ["--credentials", BLOCK]
    specs = play.folder.parent / "specs.json"
    specs.write_text(
        json.dumps(
            {"owner": "cli", "crons": [{**_spec(play).model_dump(mode="json", exclude_none=True)}]}
        ),
        encoding="utf-8",
    )
    bad = f"http://ada:{play.marks['password']}@localhost:2024"
    return {
        "crons list": [["crons", "list", *where], ["crons", "list", "--json", *where]],
        "crons plan": [["crons", "plan", str(specs), *where]],
        "crons apply": [
            ["crons", "apply", str(specs), *where],
            ["crons", "apply", str(specs), "--json"],
        ],
        "crons delete": [["crons", "delete", str(uuid.uuid4()), *where]],
        "crons sweep": [["crons", "sweep", *where, "--dry-run"]],
        "doctor": [
            ["doctor", "--block", BLOCK],
            ["doctor", "--url", bad],
            ["doctor", "--json", "--url", bad],
        ],
    }


def commands_of(app: Any, prefix: str = "") -> set[str]:
    """The words of every command that there is."""
    found: set[str] = set()
    for name in app:
        if not name.startswith("-"):
            words = f"{prefix} {name}".strip()
            found |= commands_of(app[name], words) or {words}
    return found


def play_all(told: Mapping[str, Any]) -> dict[str, Any]:
    folder = Path(told["folder"])
    play = Play(told["url"], told["marks"], folder)
    play.block().save(BLOCK, overwrite=True)
    played: set[str] = set()

    def scenarios() -> None:
        for name in pl.__all__:
            base = name[1:] if name[1:] in SCENARIOS and name.startswith("a") else name
            if base in SCENARIOS:
                play.scene(lambda: SCENARIOS[base](play, name))  # noqa: B023
                played.add(name)

    play.in_flow("scenarios", scenarios)
    with run_proxy(told["url"]) as proxy:
        failures = _failures(play, proxy)

        def fails() -> None:
            for scene in failures.values():
                play.scene(scene)

        play.in_flow("failures", fails)
        # What a failed flow run keeps is not what a failed task run keeps.
        for name in ("graph failed", "422", "no json"):
            play.in_flow(name, failures[name])
    commands = _commands(play)
    for calls in commands.values():
        for arguments in calls:
            with contextlib.suppress(SystemExit):
                main(arguments)
    wanted = {
        name
        for name in pl.__all__
        if isinstance(getattr(pl, name), Task | Flow)
        or (isinstance(getattr(pl, name), type) and issubclass(getattr(pl, name), _blocks()))
        or name in ("temporary_cron", "with_finalizer")
    }
    from prefect_langgraph.cli import app

    play.in_flow("beacon", lambda: told["beacon"])
    return {
        "played": sorted(played),
        "without scenario": sorted(wanted - played),
        "commands without scenario": sorted(commands_of(app) - set(commands)),
        "raised": sorted(play.raised),
    }


def _blocks() -> tuple[type, ...]:
    from prefect.blocks.abstract import JobRun
    from prefect.blocks.core import Block

    return (Block, JobRun)


if __name__ == "__main__":
    report = play_all(json.load(sys.stdin))
    say(json.dumps(report))
