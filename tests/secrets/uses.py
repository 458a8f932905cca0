"""How each public name is used with marked secrets.

A use gets ready while the deployment still answers, and gives back what is to be done: the same use
is made once with a deployment that works, and once with one that refuses all and repeats in its
refusal everything that it was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import pickle
import sys
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect import Task, flow, get_run_logger
from prefect.exceptions import MissingContextError
from pydantic import BaseModel, SecretStr

import prefect_langgraph as pl
from prefect_langgraph import HeaderPolicy, LangGraphAssistant, LangGraphCredentials

YEARLY = "0 0 1 1 *"
AWAY = "http://127.0.0.1:9"

Action = Callable[[], Any]


def say(*values: Any) -> None:
    """Print it, and log it where there is a run to log for."""
    text = " ".join(map(str, values))
    sys.stdout.write(f"{text}\n")
    with contextlib.suppress(MissingContextError):
        get_run_logger().warning("%s", text)


def call(name: str, *args: Any, **kwargs: Any) -> Any:
    """Call a public task or flow to its end, whatever its colour."""
    public = getattr(pl, name)
    if isinstance(public, Task):
        public = public.with_options(retry_delay_seconds=0)  # retried, but nobody waits for it
    called = public(*args, **kwargs)
    if hasattr(called, "__aiter__"):

        async def collect() -> list[Any]:
            return [item async for item in called]

        return asyncio.run(collect())
    if inspect.isawaitable(called):

        async def wait() -> Any:
            return await called

        return asyncio.run(wait())
    return list(called) if hasattr(called, "__next__") else called


@dataclass
class Setup:
    """What uses share: a block, an assistant, and things on the deployment, with marked secrets.

    Attributes:
        url: Where the blocks lead.
        name: The saved block that tasks are given.
        marks: The secrets, by what they are.
        folder: Files that are searched: what is pickled here is what Prefect would keep.
        scratch: Files that users bring along, which are not.
        shown: The names of the types of all that was shown.
        went_well: The names of the uses that raised nothing.
    """

    url: str
    name: str
    marks: Mapping[str, str]
    folder: Path
    scratch: Path
    shown: set[str] = field(default_factory=set)
    went_well: set[str] = field(default_factory=set)

    @property
    def input(self) -> dict[str, Any]:
        """An input whose secret no graph gives back."""
        return {
            "tag": "a",
            "password": self.marks["input"],
            "usage": {"input_tokens": 1, "output_tokens": 2},
        }

    @property
    def headers(self) -> dict[str, Any]:
        return {
            "X-Token": f"Bearer {self.marks['call_header']}",
            "X-Other": SecretStr(self.marks["secret_header"]),
        }

    @property
    def plain_headers(self) -> dict[str, str]:
        return {"X-Token": f"Bearer {self.marks['call_header']}"}

    @property
    def hook(self) -> str:
        """A webhook with a password and a token in its address."""
        secret = self.marks["webhook"]
        return f"http://ada:{secret}@127.0.0.1:9/hook?token={secret}&a=b"

    @property
    def configured(self) -> dict[str, Any]:
        return {"config": {"configurable": {"token": self.marks["config"]}}}

    def block(self, **changes: Any) -> LangGraphCredentials:
        """A block with secrets, not saved."""
        given: dict[str, Any] = {
            "url": self.url,
            "api_key": self.marks["key"],
            "headers": {"X-Team": f"Basic {self.marks['block_header']}"},
            "patience_seconds": 0.5,
            **changes,
        }
        return LangGraphCredentials(**given)

    def save(self) -> None:
        """Save the block and an assistant under this setup's name."""
        self.block().save(self.name, overwrite=True)
        assistant = LangGraphAssistant(
            credentials=LangGraphCredentials.load(self.name), assistant_id="worker", **self.configured
        )
        assistant.save(self.name, overwrite=True)

    # -- things on the deployment ------------------------------------------------------------------

    def handle(self, asked: Mapping[str, Any] | None = None, **options: Any) -> pl.RunHandle:
        """A run on its way."""
        given = {"credentials": self.name, "headers": self.headers, "webhook": self.hook, **options}
        return pl.start_run("worker", {**self.input, **(asked or {})}, **given)

    def thread(self) -> str:
        """A thread with nothing on it."""
        return pl.create_thread(credentials=self.name, headers=self.headers)

    def used_thread(self) -> str:
        """A thread with a state."""
        thread_id = self.thread()
        options: dict[str, Any] = {"credentials": self.name, "headers": self.headers}
        pl.run_on_thread(thread_id, "worker", self.input, **options)
        return thread_id

    def cron(self) -> pl.CronHandle:
        return pl.create_cron("worker", YEARLY, self.input, credentials=self.name, webhook=self.hook)

    def spec(self) -> pl.CronSpec:
        return pl.CronSpec(
            name="yearly", assistant_id="worker", schedule=YEARLY, input=self.input, webhook=self.hook
        )

    def file(self, text: str) -> str:
        """A file of the user's."""
        path = self.scratch / f"{uuid.uuid4()}.jsonl"
        path.write_text(text, encoding="utf-8")
        return str(path)

    def inputs(self, **asked: Any) -> str:
        """A file of inputs: Prefect keeps the parameters of flows, so secrets are no parameters."""
        return self.file(f"{json.dumps({**self.input, **asked})}\n" * 3)

    # -- what is shown -----------------------------------------------------------------------------

    def show(self, value: Any) -> None:
        """Print it as a careless user would, and pickle it as Prefect does."""
        items = value if isinstance(value, list | tuple) else [value]
        self.shown |= {type(item).__name__ for item in items}
        say(repr(value), str(value))
        for item in items:
            if isinstance(item, BaseModel) and not isinstance(item, LangGraphCredentials):
                say(item.model_dump_json(fallback=str))
        if isinstance(value, BaseException):
            say(repr(value.args), repr(vars(value)), getattr(value, "exceptions", ""))
            say("".join(traceback.format_exception(value)))
        (self.folder / f"{uuid.uuid4()}.pickle").write_bytes(pickle.dumps(value))

    def do(self, name: str, action: Action) -> None:
        """Do it, and show what came of it."""
        say(f"-- {name}")
        try:
            self.show(action())
        except Exception as error:  # noqa: BLE001 - what it says is the question
            self.show(error)
        else:
            self.went_well.add(name)


Use = Callable[[Setup, str], Action]


def _later(setup: Setup, name: str, *args: Any, **kwargs: Any) -> Action:
    return lambda: call(name, *args, credentials=setup.name, **kwargs)


def _starts(**options: Any) -> Use:
    """A task that makes a run of `worker`."""

    def use(setup: Setup, name: str) -> Action:
        given = {**setup.configured, **options, "headers": setup.headers, "webhook": setup.hook}
        return _later(setup, name, "worker", setup.input, **given)

    return use


def _batch(setup: Setup, name: str) -> Action:
    given = {
        "headers": setup.headers,
        "webhook": setup.hook,
        "metadata": {"m": setup.marks["metadata"]},
    }
    return _later(setup, name, "worker", [setup.input] * 3, **given, **setup.configured)


def _on_thread(setup: Setup, name: str) -> Action:
    thread_id = setup.thread()
    return _later(
        setup, name, thread_id, "worker", setup.input, headers=setup.headers, webhook=setup.hook
    )


def _temporary_cron(setup: Setup, name: str) -> Action:
    def action() -> Any:
        with pl.temporary_cron(
            "worker", YEARLY, setup.input, credentials=setup.name, webhook=setup.hook
        ) as cron:
            say(repr(cron), cron.handle)
            return cron.handle

    return action


def _with_finalizer(setup: Setup, name: str) -> Action:
    @pl.with_finalizer(credentials=setup.name, max_wait_seconds=5)
    @flow(name="leaves something behind")
    def leaves() -> None:
        # Each by itself, so that both are tried where nothing works.
        with contextlib.suppress(pl.LangGraphError):
            setup.handle({"sleep": 30})
        setup.cron()
        raise LookupError("on purpose")

    return leaves


def _trigger(setup: Setup, name: str) -> Action:
    def action() -> Any:
        assistant = LangGraphAssistant(
            credentials=setup.block(), assistant_id="worker", **setup.configured
        )
        say(repr(assistant), assistant)
        run = assistant.trigger(setup.input)
        say(repr(run), run.handle)
        setup.shown.add(type(run).__name__)
        run.wait_for_completion()
        say(run.fetch_result(), run.cancel())
        return asyncio.run(twin(assistant))

    async def twin(assistant: LangGraphAssistant) -> Any:
        run = await assistant.atrigger(setup.input)
        await run.await_for_completion()
        await run.acancel()
        return await run.afetch_result()

    return action


def _credentials(setup: Setup, name: str) -> Action:
    def action() -> Any:
        block = setup.block(header_policy=HeaderPolicy(includes=("x-*",)))
        say(repr(block), block, block.connection(), block.model_dump(), block.model_dump_json())
        say(repr(block.get_client()), repr(block.get_sync_client()), vars(block), dict(block))
        os.environ.update(LANGGRAPH_API_URL=setup.url, LANGGRAPH_API_KEY=setup.marks["key"])
        try:
            say(repr(LangGraphCredentials.from_env()))
        finally:
            del os.environ["LANGGRAPH_API_URL"], os.environ["LANGGRAPH_API_KEY"]
        return LangGraphCredentials.load(setup.name)

    return action


class _Fetching(LangGraphCredentials):
    """A block that fetches its token."""

    _block_type_name = "Fetching"

    def get_token(self) -> pl.Token:
        return pl.Token(value=SecretStr(_fetched[self.url]))


_fetched: dict[str, str] = {}


def _token(setup: Setup, name: str) -> Action:
    def action() -> Any:
        _fetched[setup.url] = setup.marks["token"]
        block = _Fetching(url=setup.url, api_key=setup.marks["key"])
        say(block.get_token(), repr(block.get_token()), block.connection())
        say(call("run_stateless", "worker", setup.input, credentials=block))
        try:
            call("get_thread_state", str(uuid.uuid4()), credentials=block)
        except pl.DeploymentError as error:
            say(error)
        return block

    return action


def _policy(setup: Setup, name: str) -> Action:
    def action() -> Any:
        policy = HeaderPolicy(includes=("x-*",), excludes=("x-other",))
        say(repr(policy.violations(setup.headers)), policy.lint(), policy.passes("X-Token"))
        return policy.check(setup.headers, on_violation="warn")

    return action


def _fan_out(setup: Setup, name: str) -> Action:
    inputs, output = setup.inputs(), str(setup.folder / f"{name}-{setup.name}.jsonl")
    options = {"input_path": inputs, "output_path": output, "per_run_tasks": name == "fan_out"}
    # A block that is not saved is a parameter of the flow, which Prefect keeps.
    return lambda: call(name, "worker", credentials=setup.block(), **options)


def _run_assistant(setup: Setup, name: str) -> Action:
    # Prefect keeps the parameters of a flow: this mark is looked for everywhere else.
    asked = {"tag": "a", "password": setup.marks["parameter"]}
    return lambda: pl.run_assistant(setup.name, asked, show_values=True)


def _cron_window(setup: Setup, name: str) -> Action:
    asked = {"tag": "a", "password": setup.marks["parameter"]}
    return _later(
        setup, name, "worker", "* * * * * */1", timedelta(seconds=2), asked, allow_seconds=True
    )


def _reconcile(setup: Setup, name: str) -> Action:
    specs = [setup.spec(), setup.spec().model_copy(update={"name": "b"})]
    return _later(setup, name, specs, owner=f"{name} {setup.name}")


def _reconcile_flow(setup: Setup, name: str) -> Action:
    crons = [setup.spec().model_dump(mode="json", exclude_none=True)]
    specs = setup.file(json.dumps({"owner": "secrets", "crons": crons}))
    return _later(setup, name, specs)


def _updated(setup: Setup, name: str) -> Action:
    values, headers = {"result": setup.marks["state"]}, setup.headers
    return _later(setup, name, setup.used_thread(), values, as_node="finish", headers=headers)


def _item(setup: Setup, name: str) -> Action:
    return lambda: pl.join_runs(
        pl.start_runs(
            None, [pl.RunItem(assistant_id="worker", input=setup.input)], credentials=setup.name
        )
    )


USES: dict[str, Use] = {
    "HeaderPolicy": _policy,
    "Token": _token,
    "LangGraphAssistant": _trigger,
    "LangGraphCredentials": _credentials,
    "ask_interrupts": lambda p, n: _later(p, n, [p.handle()]),
    "cancel_run": lambda p, n: _later(p, n, p.handle({"sleep": 30})),
    "cancel_runs": lambda p, n: _later(p, n, [p.handle({"sleep": 30})]),
    "create_cron": lambda p, n: _later(p, n, "worker", YEARLY, p.input, webhook=p.hook, **p.configured),
    "create_thread": lambda p, n: _later(p, n, metadata={"m": p.marks["metadata"]}, headers=p.headers),
    "cron_window": _cron_window,
    "delete_cron": lambda p, n: _later(p, n, p.cron(), headers=p.plain_headers),
    "delete_thread": lambda p, n: _later(p, n, p.thread(), headers=p.headers),
    "fan_out": _fan_out,
    "get_run": lambda p, n: _later(p, n, p.handle()),
    "get_thread_state": lambda p, n: _later(p, n, p.used_thread(), headers=p.headers),
    "join_run": lambda p, n: _later(p, n, p.handle()),
    "join_runs": lambda p, n: _later(p, n, [p.handle()]),
    "join_stream": lambda p, n: _later(p, n, p.handle(stream_resumable=True, stream_mode="updates")),
    "next_fires": lambda p, n: lambda: pl.next_fires(YEARLY, n=2),
    "reconcile_crons": _reconcile,
    "reconcile_crons_flow": _reconcile_flow,
    "run_assistant": _run_assistant,
    "run_on_thread": _on_thread,
    "run_stateless": _starts(),
    "search_crons": lambda p, n: _later(p, n, headers=p.plain_headers),
    "start_run": _starts(),
    "resume_waiting": lambda p, n: lambda: call(n, p.name),
    "start_runs": _batch,
    "stream_run": _starts(stream_mode=["updates", "messages-tuple", "custom", "values"]),
    "stream_to_logs": _starts(),
    "suspend_until_ended": lambda p, n: _later(p, n, [p.handle()]),
    "sweep": lambda p, n: lambda: call(n, p.name, grace_seconds=0),
    "temporary_cron": _temporary_cron,
    "update_cron": lambda p, n: _later(p, n, p.cron(), input=p.input, webhook=p.hook),
    "update_thread_state": _updated,
    "with_finalizer": _with_finalizer,
}


# Those that send what is to be run.
# fmt: off
CREATING = (
    "LangGraphAssistant", "create_cron", "cron_window", "fan_out", "reconcile_crons",
    "run_assistant", "run_on_thread", "run_stateless", "start_run", "start_runs", "stream_run",
    "stream_to_logs", "temporary_cron", "update_cron", "update_thread_state", "with_finalizer",
)
# fmt: on


def use_of(name: str) -> Use | None:
    """The use of a public name; a twin has its sibling's."""
    return USES.get(name) or (USES.get(name[1:]) if name.startswith("a") else None)
