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
from scenes import AWAY, YEARLY, Action, Play

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


def wrong_blocks(play: Play) -> dict[str, Action]:
    """Blocks and files with something wrong beside a secret."""
    password, key = play.marks["password"], play.marks["key"]

    def address(url: str) -> Action:
        return lambda: LangGraphCredentials(url=url)

    broken = play.file('{"http": {"a": ' + json.dumps(play.input) + " zq")
    return {
        "password in the address": address(f"http://ada:{password}@localhost:2024"),
        "token in the address": address(f"http://localhost:2024/?token={password}"),
        "token in the fragment": address(f"http://localhost:2024/#{password}"),
        "address without a scheme": address(f"ada:{password}@localhost:2024"),
        "address with a bad port": address(f"http://ada:{password}@localhost:20x4"),
        "secret in the wrong field": lambda: play.block(max_connections=key),
        "key as a header": lambda: play.block(headers={"X-Api-Key": key}),
        "header with a line break": lambda: play.block(headers={"X-A": f"a\n{key}"}),
        "credentials as a mapping": lambda: LangGraphAssistant(
            credentials={"url": f"http://ada:{password}@localhost", "api_key": key},
            assistant_id="worker",
        ),
        "cron that is changed with headers": lambda: pl.update_cron(
            play.cron(), enabled=False, credentials=play.name, headers=play.plain_headers
        ),
        "policy that cannot be read": lambda: HeaderPolicy.from_langgraph_json(broken),
        "inputs that cannot be read": lambda: pl.fan_out(
            "worker", input_path=broken, credentials=play.name
        ),
        "items that are wrong": lambda: pl.fan_out(
            input_path=play.inputs(), items=True, credentials=play.name
        ),
        "specs that cannot be read": lambda: pl.reconcile_crons(
            broken, owner="a", credentials=play.name
        ),
        "specs that are wrong": lambda: pl.reconcile_crons(
            [{"name": "a", "input": play.input, "schedule": {"a": key}}],
            owner="a",
            credentials=play.name,
        ),
    }


def refusals(play: Play, proxy: Proxy) -> dict[str, Action]:
    """Answers of the deployment, by their status. Retried at once where the task would wait."""
    retried = pl.run_stateless.with_options(retries=1, retry_delay_seconds=0)
    given: dict[str, Any] = {"credentials": play.name, "headers": play.headers}

    def run() -> Any:
        return retried("worker", play.input, webhook=play.hook, **given)

    def faulty(fault: Any, action: Callable[[], Any] = run, path: str = "") -> Action:
        def scene() -> Any:
            proxy.clear()
            proxy.on("*", path, fault, times=None)
            try:
                return action()
            finally:
                proxy.clear()

        return scene

    def busy() -> Any:
        handle = play.handle({"sleep": 30}, thread_id=play.thread())
        options: dict[str, Any] = {"multitask_strategy": "reject", **given}
        return pl.run_on_thread(handle.thread_id, "worker", play.input, **options)

    def failing_fan_out() -> Any:
        return pl.fan_out("worker", input_path=play.inputs(fail="no luck"), credentials=play.name)

    def cut_stream() -> Any:
        handle = play.handle(stream_mode="updates")
        pl.join_run(handle, credentials=play.name)
        return list(pl.join_stream(handle, credentials=play.name))

    where = f"http://ada:{play.marks['password']}@127.0.0.1:9/?token={play.marks['webhook']}"
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
            lambda: list(pl.stream_run("worker", play.input, max_wait_seconds=2, **given)),
            path="/stream",
        ),
        "stream gone": cut_stream,
        "fan-out failed": failing_fan_out,
        "busy": busy,
    }


def endings(play: Play) -> dict[str, Action]:
    """Ways in which a run ends, other than well, and calls that nothing comes of."""
    run = pl.run_stateless.with_options(retries=0)
    given: dict[str, Any] = {"credentials": play.name, "headers": play.headers}
    once = {**given, "webhook": play.hook}
    away = play.block(url=AWAY)

    def interrupted() -> Any:
        return pl.run_on_thread(play.thread(), "worker", {**play.input, "interrupts": 1}, **given)

    def lost() -> Any:
        handle = play.handle(thread_id=play.thread())
        pl.delete_thread(handle.thread_id, credentials=play.name)
        return pl.join_run(handle, credentials=play.name)

    def cancelled() -> Any:
        handle = play.handle({"sleep": 30}, thread_id=play.thread())
        stop = threading.Thread(target=lambda: pl.cancel_run.fn(handle, credentials=play.name))
        stop.start()
        try:
            return pl.join_run(handle, credentials=play.name)
        finally:
            stop.join()

    async def given_up() -> Any:
        async with asyncio.timeout(1):
            return await pl.arun_stateless("worker", {**play.input, "sleep": 30}, **given)

    def policed() -> Any:
        strict = play.block(header_policy=HeaderPolicy(includes=("x-nothing",)))
        return run("worker", play.input, credentials=strict, headers=play.headers)

    def warned() -> Any:
        lenient = play.block(header_policy=HeaderPolicy(on_violation="warn"))
        return run("worker", play.input, credentials=lenient, headers=play.headers)

    @pl.with_finalizer(credentials=play.name, max_wait_seconds=1)
    @flow(name="finalizer that fails")
    def unreleased() -> None:
        play.block(url=AWAY).save(play.name, overwrite=True)

    def finalizer() -> Any:
        try:
            unreleased()
        finally:
            play.save()

    secret = play.marks["call_header"]
    return {
        "wrong key": lambda: run(
            "worker", play.input, credentials=play.block(api_key=play.marks["wrong_key"])
        ),
        "away": lambda: run("worker", play.input, credentials=away, headers=play.headers),
        "assistant unknown": lambda: run("nobody", play.input, **once),
        "graph failed": lambda: run("worker", {**play.input, "fail": "no luck"}, **once),
        "some failed": lambda: pl.join_runs([play.handle({"fail": "no luck"})], credentials=play.name),
        "timed out": lambda: run("worker", {**play.input, "sleep": 60}, **once),
        "deadline": lambda: run("worker", {**play.input, "sleep": 60}, max_wait_seconds=1, **once),
        "interrupted": interrupted,
        "lost": lost,
        "cancelled": cancelled,
        "given up": lambda: asyncio.run(given_up()),
        "policy": policed,
        "policy that warns": warned,
        "no json": lambda: run("worker", {"a": play.input, "b": object()}, **once),
        "bad header": lambda: run(
            "worker", play.input, credentials=play.name, headers={"X-A": f"a\n{secret}"}
        ),
        "header that is a value": lambda: run(
            "worker", play.input, credentials=play.name, headers={f"{secret} ": "x"}
        ),
        "cron with headers": lambda: pl.create_cron(
            "worker", YEARLY, play.input, credentials=play.name, headers=play.plain_headers
        ),
        "schedule": lambda: pl.create_cron("worker", "not one", play.input, credentials=play.name),
        "no such block": lambda: run("worker", play.input, credentials="nobody", headers=play.headers),
        "block of another kind": lambda: run("worker", play.input, credentials={"key": secret}),
        "finalizer away": finalizer,
        "window of a deployment away": lambda: pl.cron_window(
            "worker", YEARLY, timedelta(seconds=1), credentials=away
        ),
    }
