"""Ways to fail with marked secrets, beside a refusal of each call."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

from prefect import flow
from pydantic import BaseModel
from uses import AWAY, YEARLY, Action, Setup

import prefect_langgraph as pl
from prefect_langgraph import HeaderPolicy, LangGraphAssistant, LangGraphCredentials
from proxy import CutStream, Exchange, LoseResponse, Proxy, Response

CREATE = r"/(runs(/batch|/stream|/crons)?|state)$"


@dataclass(frozen=True)
class Echo:
    """Refuses, and repeats all that it was sent: as it is, and each word of it by itself.

    Attributes:
        status: The HTTP status.
        heard: Gets the marks that it was sent.
    """

    status: int
    heard: ClassVar[set[str]] = set()

    async def apply(self, exchange: Exchange) -> None:
        request = exchange.request
        sent = json.dumps({"headers": request.headers, "body": request.body.decode()})
        words = sorted(set(re.findall(r"zq\w+", sent)))
        self.heard.update(words)
        # The words first: what is long is cut.
        said = {"detail": json.dumps({"words": words, "sent": sent})}
        await exchange.answer(Response(self.status, json.dumps(said).encode()))


@dataclass(frozen=True)
class Redirect:
    """Leads to another address."""

    location: str

    async def apply(self, exchange: Exchange) -> None:
        await exchange.answer(Response(307, b"", (("location", self.location),)))


def wrong_models(mark: str) -> dict[str, Action]:
    """Every public model made of what is wrong for it, so that pydantic refuses it."""
    wrong = {"password": mark, "words": [mark]}

    def refused(model: type[BaseModel], value: Any) -> Action:
        return lambda: model.model_validate(value)

    actions: dict[str, Action] = {}
    for name in pl.__all__:
        model = getattr(pl, name)
        if isinstance(model, type) and issubclass(model, BaseModel):
            fields = [*model.model_fields, "unknown"]
            actions[f"{name}: each a mapping"] = refused(model, dict.fromkeys(fields, wrong))
            actions[f"{name}: each a text"] = refused(model, dict.fromkeys(fields, mark))
            actions[f"{name}: a text"] = refused(model, mark)
            actions[f"{name}: nothing known"] = refused(model, {"password": mark})
    return actions


def wrong_blocks(setup: Setup) -> dict[str, Action]:
    """Blocks and files with something wrong beside a secret."""
    password, key = setup.marks["password"], setup.marks["key"]

    def address(url: str) -> Action:
        return lambda: LangGraphCredentials(url=url)

    broken = setup.file('{"http": {"a": ' + json.dumps(setup.input) + " zq")
    return {
        "password in the address": address(f"http://ada:{password}@localhost:2024"),
        "token in the address": address(f"http://localhost:2024/?token={password}"),
        "token in the fragment": address(f"http://localhost:2024/#{password}"),
        "address without a scheme": address(f"ada:{password}@localhost:2024"),
        "address with a bad port": address(f"http://ada:{password}@localhost:20x4"),
        "secret in the wrong field": lambda: setup.block(max_connections=key),
        "key as a header": lambda: setup.block(headers={"X-Api-Key": key}),
        "header with a line break": lambda: setup.block(headers={"X-A": f"a\n{key}"}),
        "credentials as a mapping": lambda: LangGraphAssistant(
            credentials={"url": f"http://ada:{password}@localhost", "api_key": key},
            assistant_id="worker",
        ),
        "cron that is changed with headers": lambda: pl.update_cron(
            setup.cron(), enabled=False, credentials=setup.name, headers=setup.plain_headers
        ),
        "policy that cannot be read": lambda: HeaderPolicy.from_langgraph_json(broken),
        "inputs that cannot be read": lambda: pl.fan_out(
            "worker", input_path=broken, credentials=setup.name
        ),
        "items that are wrong": lambda: pl.fan_out(
            input_path=setup.inputs(), items=True, credentials=setup.name
        ),
        "specs that cannot be read": lambda: pl.reconcile_crons(
            broken, owner="a", credentials=setup.name
        ),
        "specs that are wrong": lambda: pl.reconcile_crons(
            [{"name": "a", "input": setup.input, "schedule": {"a": key}}],
            owner="a",
            credentials=setup.name,
        ),
    }


def refusals(setup: Setup, proxy: Proxy) -> dict[str, Action]:
    """Answers of the deployment, by their status. Retried at once where the task would wait."""
    retried = pl.run_stateless.with_options(retries=1, retry_delay_seconds=0)
    given: dict[str, Any] = {"credentials": setup.name, "headers": setup.headers}

    def run() -> Any:
        return retried("worker", setup.input, webhook=setup.hook, **given)

    def faulty(fault: Any, action: Callable[[], Any] = run, path: str = "") -> Action:
        def use() -> Any:
            proxy.clear()
            proxy.on("*", path, fault, times=None)
            try:
                return action()
            finally:
                proxy.clear()

        return use

    def busy() -> Any:
        handle = setup.handle({"sleep": 30}, thread_id=setup.thread())
        options: dict[str, Any] = {"multitask_strategy": "reject", **given}
        return pl.run_on_thread(handle.thread_id, "worker", setup.input, **options)

    def failing_fan_out() -> Any:
        return pl.fan_out("worker", input_path=setup.inputs(fail="no luck"), credentials=setup.name)

    def cut_stream() -> Any:
        handle = setup.handle(stream_mode="updates")
        pl.join_run(handle, credentials=setup.name)
        return list(pl.join_stream(handle, credentials=setup.name))

    where = f"http://ada:{setup.marks['password']}@127.0.0.1:9/?token={setup.marks['webhook']}"
    # With the request that starts a run: it holds the most.
    statuses = (400, 401, 403, 404, 409, 413, 422, 429, 500, 503)
    return {
        **{f"{status}": faulty(Echo(status), path=CREATE) for status in statuses},
        "fan-out refused": faulty(Echo(422), failing_fan_out),
        "fan-out whose runs are refused": faulty(Echo(422), failing_fan_out, path="/runs"),
        "redirected": faulty(Redirect(where)),
        "answer lost": faulty(LoseResponse(), run, path="/runs"),
        "stream cut": faulty(
            CutStream(10),
            lambda: list(pl.stream_run("worker", setup.input, max_wait_seconds=2, **given)),
            path="/stream",
        ),
        "stream gone": cut_stream,
        "fan-out failed": failing_fan_out,
        "busy": busy,
    }


def endings(setup: Setup) -> dict[str, Action]:
    """Ways in which a run ends, other than well, and calls that nothing comes of."""
    run = pl.run_stateless.with_options(retries=0)
    given: dict[str, Any] = {"credentials": setup.name, "headers": setup.headers}
    once = {**given, "webhook": setup.hook}
    away = setup.block(url=AWAY)

    def interrupted() -> Any:
        return pl.run_on_thread(setup.thread(), "worker", {**setup.input, "interrupts": 1}, **given)

    def lost() -> Any:
        handle = setup.handle(thread_id=setup.thread())
        pl.delete_thread(handle.thread_id, credentials=setup.name)
        return pl.join_run(handle, credentials=setup.name)

    def cancelled() -> Any:
        handle = setup.handle({"sleep": 30}, thread_id=setup.thread())
        stop = threading.Thread(target=lambda: pl.cancel_run.fn(handle, credentials=setup.name))
        stop.start()
        try:
            return pl.join_run(handle, credentials=setup.name)
        finally:
            stop.join()

    async def given_up() -> Any:
        async with asyncio.timeout(1):
            return await pl.arun_stateless("worker", {**setup.input, "sleep": 30}, **given)

    def policed() -> Any:
        strict = setup.block(header_policy=HeaderPolicy(includes=("x-nothing",)))
        return run("worker", setup.input, credentials=strict, headers=setup.headers)

    def warned() -> Any:
        lenient = setup.block(header_policy=HeaderPolicy(on_violation="warn"))
        return run("worker", setup.input, credentials=lenient, headers=setup.headers)

    @pl.with_finalizer(credentials=setup.name, max_wait_seconds=1)
    @flow(name="finalizer that fails")
    def unreleased() -> None:
        setup.block(url=AWAY).save(setup.name, overwrite=True)

    def finalizer() -> Any:
        try:
            unreleased()
        finally:
            setup.save()

    secret = setup.marks["call_header"]
    return {
        "wrong key": lambda: run(
            "worker", setup.input, credentials=setup.block(api_key=setup.marks["wrong_key"])
        ),
        "away": lambda: run("worker", setup.input, credentials=away, headers=setup.headers),
        "assistant unknown": lambda: run("nobody", setup.input, **once),
        "graph failed": lambda: run("worker", {**setup.input, "fail": "no luck"}, **once),
        "some failed": lambda: pl.join_runs(
            [setup.handle({"fail": "no luck"})], credentials=setup.name
        ),
        "timed out": lambda: run("worker", {**setup.input, "sleep": 60}, **once),
        "deadline": lambda: run("worker", {**setup.input, "sleep": 60}, max_wait_seconds=1, **once),
        "interrupted": interrupted,
        "lost": lost,
        "cancelled": cancelled,
        "given up": lambda: asyncio.run(given_up()),
        "policy": policed,
        "policy that warns": warned,
        "no json": lambda: run("worker", {"a": setup.input, "b": object()}, **once),
        "bad header": lambda: run(
            "worker", setup.input, credentials=setup.name, headers={"X-A": f"a\n{secret}"}
        ),
        "header that is a value": lambda: run(
            "worker", setup.input, credentials=setup.name, headers={f"{secret} ": "x"}
        ),
        "cron with headers": lambda: pl.create_cron(
            "worker", YEARLY, setup.input, credentials=setup.name, headers=setup.plain_headers
        ),
        "schedule": lambda: pl.create_cron("worker", "not one", setup.input, credentials=setup.name),
        "no such block": lambda: run(
            "worker", setup.input, credentials="nobody", headers=setup.headers
        ),
        "block of another kind": lambda: run("worker", setup.input, credentials={"key": secret}),
        "finalizer away": finalizer,
        "window of a deployment away": lambda: pl.cron_window(
            "worker", YEARLY, timedelta(seconds=1), credentials=away
        ),
    }
