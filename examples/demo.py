"""`make demo`: agents run from Prefect, on servers of the demo's own, and what became of each.

Nothing is needed beside the installed package: both servers are started on free ports, keep their
state in temporary folders, and end with this process, however it ends.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn, cast

from rich.console import Console
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from prefect_langgraph.testing import run_langgraph_server, run_prefect_server

AGENT = Path(__file__).resolve().parent / "agent" / "langgraph.json"
RUNS, FAILURES, QUESTION = 50, {7, 19, 23, 38, 46}, 31

SHOWN = {
    "success": ("✓", "green"),
    "error": ("✗", "red"),
    "interrupted": ("?", "yellow"),
    "cancelled": ("■", "magenta"),
    "timeout": ("⧗", "red"),
    "lost": ("∅", "red"),
}

console = Console(highlight=False)


def main() -> None:
    """Start the servers, run the flow on them, and say how long it took."""
    began = time.monotonic()
    signal.signal(signal.SIGTERM, _leave)
    servers = ExitStack()
    # Registered before Prefect is imported, so it runs after Prefect has sent its last logs.
    atexit.register(servers.close)
    console.print(Rule("[bold]LangGraph agents, run from Prefect"))
    with console.status("Starting a LangGraph server and a Prefect server on free ports"):
        url, api_url = _start_servers(servers)
    console.print(f"LangGraph  {url}\nPrefect    {api_url}\n", style="dim")
    _settings_for_prefect(servers, api_url)
    _flow(url)()
    console.print(Rule(f"[bold]done in {time.monotonic() - began:.0f} s"))
    console.print(
        "Three commands to try next:\n"
        "  .venv/bin/python examples/gallery/evaluation.py\n"
        "  .venv/bin/prefect-langgraph doctor --url http://your-deployment\n"
        "  make docs"
    )


def _leave(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


def _start_servers(servers: ExitStack) -> tuple[str, str]:
    """Start both at once and return their addresses."""
    langgraph = _Later(lambda: servers.enter_context(run_langgraph_server(AGENT, jobs=20)).url)
    prefect = _Later(lambda: servers.enter_context(run_prefect_server()).api_url)
    return langgraph.result(), prefect.result()


class _Later:
    """A call on a daemon OS thread: unlike an executor's it does not hold an interrupted process."""

    def __init__(self, function: Callable[[], str]) -> None:
        self._function = function
        self._value = ""
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._function()
        except BaseException as error:  # noqa: BLE001 - raised by result()
            self._error = error

    def result(self) -> str:
        while self._thread.is_alive():
            self._thread.join(0.1)
        if self._error is not None:
            raise self._error
        return self._value


def _settings_for_prefect(servers: ExitStack, api_url: str) -> None:
    """Point Prefect at the demo's server. It reads its settings once, when it is imported."""
    home = servers.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
    for name in [*os.environ]:
        if name.startswith("PREFECT_"):
            del os.environ[name]
    os.environ |= {
        "PREFECT_API_URL": api_url,
        "PREFECT_HOME": home,
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_LOG_PRINTS": "false",
        "DO_NOT_TRACK": "1",
    }


def _flow(url: str) -> Callable[[], None]:
    """The demo as a Prefect flow, with a saved block that leads to the server."""
    from prefect import flow

    from prefect_langgraph import LangGraphCredentials

    LangGraphCredentials(url=url).save("default")

    @flow(name="demo")
    def demo() -> None:
        one_question()
        conversation()
        approval()
        fan_out()
        budget()

    def all_of_it() -> None:
        demo()
        suspension()

    return all_of_it


def one_question() -> None:
    """A stateless run: an answer, and nothing left behind."""
    from prefect_langgraph import LangGraphCredentials, run_stateless

    _title("A stateless run", 'run_stateless("answer", {"question": "What is 6 x 7?"})')
    values = run_stateless("answer", {"question": "What is 6 x 7?"})
    # Prefect types what is awaitable in asynchronous code as either.
    block = cast(LangGraphCredentials, LangGraphCredentials.load("default"))
    with block.get_sync_client() as client:
        left = client.threads.count()
    console.print(f"  {values['answer']!r}    threads left on the server: {left}\n")


def conversation() -> None:
    """Two assistants take turns on one thread, and each hears what the other said."""
    from prefect_langgraph import create_thread, run_on_thread

    _title("A conversation of two assistants", 'run_on_thread(thread_id, "chat" | "critic", turn)')
    thread_id = create_thread()
    values: dict[str, Any] = {}
    for assistant, said in (("chat", "Hello, I am Ada."), ("critic", "What do you make of that?")):
        turn = {"messages": [{"role": "user", "content": said}]}
        values = run_on_thread(thread_id, assistant, turn)
    for message in values["messages"]:
        speaker = message.get("name") or "you"
        style = "bold" if speaker == "you" else "cyan"
        console.print(Text(f"  {speaker:>7} ", style).append(message["content"], "default"))
    console.print(f"  {'':>7} both on thread {thread_id}\n", style="dim")


def approval() -> None:
    """An agent asks before it refunds, and a person answers in the form of the flow run."""
    from prefect import flow

    from prefect_langgraph import FanOutResult, ask_interrupts, start_runs

    _title("A person answers in Prefect", "ask_interrupts(handles)")

    @flow
    def review_refunds() -> FanOutResult:
        handles = start_runs("refunds", [{"order": "A-7", "amount": 12}])
        return ask_interrupts(handles, wait="process")

    person = threading.Thread(target=_press_resume, daemon=True)
    person.start()
    result = review_refunds()
    (answer,) = result.answers
    question = answer.question
    console.print(
        f"  {question.assistant_id} asks: {question.tool} {question.arguments}? {question.text}"
    )
    console.print(
        f"  {answer.answered_by} decides: [green]{answer.reply['type']}[/], and the agent says "
        f"{result.values[0]['said']!r}\n"
    )


def _press_resume() -> None:
    """Do what a person does in Prefect's UI: open the flow run, fill the form, press Resume."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateName,
    )
    from prefect.client.schemas.responses import SetStateStatus

    paused = FlowRunFilter(state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["Paused"])))
    with get_client(sync_client=True) as client:
        while True:
            for asking in client.read_flow_runs(flow_run_filter=paused):
                details = asking.state.state_details if asking.state is not None else None
                keys = (details.run_input_keyset if details is not None else None) or {}
                forms = client.filter_flow_run_input(asking.id, keys.get("schema", ""), 1, set())
                for form in forms:
                    # The field for who answers has a name of the form's own, and is the last.
                    *_, name_field = form.decoded_value["required"]
                    given = {"q1_decision": "approve", name_field: "Ada"}
                    if client.resume_flow_run(asking.id, given).status is SetStateStatus.ACCEPT:
                        return
            time.sleep(0.2)


def fan_out() -> None:
    """Fifty runs in the background: some fail, one asks, and none of it is hidden."""
    from prefect_langgraph import join_runs, run_on_thread, start_runs

    _title(f"A fan-out of {RUNS} background runs", 'join_runs(start_runs("worker", inputs))')
    with console.status(f"{RUNS} runs on their way"):
        began = time.monotonic()
        handles = start_runs("worker", [_input(number) for number in range(RUNS)])
        results = join_runs(handles, on_failure="collect")
        took = time.monotonic() - began
    grid = Table.grid(padding=(0, 2))
    cells = [_cell(number, result.status.value) for number, result in enumerate(results)]
    for start in range(0, RUNS, 10):
        grid.add_row(*cells[start : start + 10])
    counts = Text("   ").join(
        Text(f"{SHOWN[status.value][0]} {count} {status.value}", SHOWN[status.value][1])
        for status, count in results.counts.items()
    )
    console.print(Panel(grid, title=counts, subtitle=f"{took:.1f} s", expand=False))
    for number, result in enumerate(results):
        if result.error is not None:
            console.print(f"  run {number:02}: [red]{result.error}")
        for interrupt in result.interrupts:
            console.print(
                f"  run {number:02}: [yellow]waits for a person: {interrupt['value']['question']}"
            )
            answered = run_on_thread(result.handle.thread_id, "worker", command={"resume": "yes"})
            console.print(f"          answered 'yes', and it ended with {answered['result']!r}")
    console.print()


def budget() -> None:
    """A fan-out that stops when it has used what it may."""
    from prefect_langgraph import Budget, RunStatus, fan_out

    _title("A budget of 500 tokens", 'fan_out("worker", inputs, budget=Budget(tokens=500))')
    usage = {"input_tokens": 90, "output_tokens": 10, "total_tokens": 100}
    inputs = [{"tag": str(number), "usage": usage} for number in range(20)]
    with console.status("20 runs of 100 tokens each, two at a time"):
        result = fan_out(
            "worker", inputs, budget=Budget(tokens=500), max_in_flight=2, on_failure="collect"
        )
    ran, used = result.counts[RunStatus.SUCCESS], result.usage.total_tokens
    console.print(f"  {ran} of {len(result)} runs were started, which used {used} tokens\n")


def suspension() -> None:
    """A flow run gives its process back while its run goes on, and is resumed when it has ended."""
    from prefect.client.orchestration import get_client
    from prefect.deployments import run_deployment
    from prefect.exceptions import ObjectNotFound

    from prefect_langgraph import resume_waiting

    _title("Waiting without a process", "suspend_until_ended(handles)")
    seen: list[str] = []
    with (
        console.status("A flow run waits for its run, and nothing of it is in memory"),
        _serving(),
        get_client(sync_client=True) as client,
    ):
        while True:
            try:
                asked = run_deployment("overnight/demo", parameters={"seconds": 5}, timeout=0)
                break
            except ObjectNotFound:  # not served yet
                time.sleep(0.2)
        # Prefect types what is awaitable in asynchronous code as either.
        flow_run_id = cast(Any, asked).id
        while True:
            state = cast(Any, client.read_flow_run(flow_run_id).state)
            if state.name not in seen[-1:]:
                seen.append(state.name)
            if state.is_final():
                break
            if state.name == "Suspended":
                # What the deployed flow `resume` and `prefect-langgraph resume` do again and again.
                resume_waiting()
            time.sleep(0.2)
    came_to = state.result(raise_on_failure=False)
    console.print(f"  {' → '.join(seen)}\n  {came_to}\n")


@contextmanager
def _serving() -> Iterator[None]:
    """Serve `overnight.py`, in a process as it would be anywhere."""
    script = str(AGENT.parents[1] / "overnight.py")
    # It asks Prefect every ten seconds otherwise.
    environment = {**os.environ, "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    with subprocess.Popen(  # noqa: S603 - our own
        [sys.executable, script],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield
        finally:
            process.terminate()


def _input(number: int) -> dict[str, Any]:
    """What run `number` is to do; see `examples/agent/worker.py`."""
    asked: dict[str, Any] = {"tag": f"run {number:02}", "sleep": 0.1 + number % 7 / 10}
    if number in FAILURES:
        asked["fail"] = f"no luck with number {number}"
    if number == QUESTION:
        asked["interrupts"] = 1
    return asked


def _cell(number: int, status: str) -> Text:
    sign, style = SHOWN[status]
    return Text(f"{number:02} {sign}", style)


def _title(title: str, call: str) -> None:
    console.print(Text(title, "bold").append(f"\n  {call}", "dim not bold"))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        console.print("\ninterrupted: what ran is cancelled, and the servers end")
        sys.exit(130)
