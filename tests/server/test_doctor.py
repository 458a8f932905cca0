"""`prefect-langgraph doctor`: what is wrong, one line each, with what to do."""

from __future__ import annotations

import asyncio
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk.client import SyncLangGraphClient
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.states import Pending, Running, Suspended

from prefect_langgraph import LangGraphCredentials, start_run, sweep
from prefect_langgraph import doctor as doctor_module
from prefect_langgraph.cli import main
from prefect_langgraph.doctor import OLDEST_SDK, PROBE, Check, examine, numbers_of, skew
from prefect_langgraph.headers import HeaderPolicy
from prefect_langgraph.suspension.resumer import show_sign_of_life
from prefect_langgraph.testing import LangGraphServer, PrefectServer, run_langgraph_server
from proxy import Answer, Proxy, Rewrite
from support.waiting import until

pytestmark = pytest.mark.usefixtures("prefect_server")

ROOT = Path(__file__).resolve().parents[2]
LANGGRAPH_JSON = ROOT / "examples" / "agent" / "langgraph.json"

GUARDED = """
from langgraph_sdk import Auth

auth = Auth()


@auth.authenticate
async def authenticate(headers: dict) -> str:
    if headers.get(b"x-api-key") != b"the-right-key":
        raise Auth.exceptions.HTTPException(status_code=401, detail="no")
    return "ada"
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LangGraphServer]:
    """A server that asks for a key, and that hides every header from its graphs."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "auth.py").write_text(GUARDED, encoding="utf-8")
    graph = f"{LANGGRAPH_JSON.parent / 'graphs.py'}:answer"
    config = {"dependencies": ["."], "graphs": {"answer": graph}, "auth": {"path": "./auth.py:auth"}}
    (folder / "langgraph.json").write_text(json.dumps(config), encoding="utf-8")
    with run_langgraph_server(folder / "langgraph.json", jobs=2) as server:
        yield server


def checks_of(credentials: LangGraphCredentials, **options: Any) -> dict[str, Check]:
    return {check.name: check for check in asyncio.run(examine(credentials.connection(), **options))}


@pytest.fixture
def run_main(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["doctor", *arguments])
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, captured.out, captured.err

    return run


def test_healthy_deployment_is_ok_in_everything(
    credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    # What tests before this one left on the server that they share is not what is tested here.
    credentials.save("healthy", overwrite=True)
    sweep("healthy", grace_seconds=0)
    before = client.threads.count()
    checks = checks_of(credentials, policy=HeaderPolicy(includes=("x-prefect-*", "x-request-id")))
    assert {name: check.status for name, check in checks.items()} == dict.fromkeys(
        (
            "sdk",
            "prefect",
            "langgraph.json",
            "reachable",
            "clock",
            "server",
            "features",
            "key",
            "assistants",
            "crons",
            "headers",
            "left behind",
            "resumer",
        ),
        "ok",
    )
    assert version("langgraph-api") in checks["server"].message
    assert "answer, chat, critic, headers, refunds, worker" in checks["assistants"].message
    assert PROBE in checks["headers"].message
    assert client.threads.count() == before


def test_deployment_that_is_not_there_fails_and_nothing_more_is_asked() -> None:
    checks = checks_of(LangGraphCredentials(url="http://127.0.0.1:9"))
    assert [check.name for check in checks.values() if check.status != "ok"] == ["reachable"]
    assert checks["reachable"].advice


@pytest.mark.parametrize(
    ("key", "message"), [(None, "asks for a key"), ("the-wrong-key", "refuses the key")]
)
def test_key_that_is_missing_or_wrong_fails(
    key: str | None, message: str, guarded: LangGraphServer
) -> None:
    checks = checks_of(LangGraphCredentials(url=guarded.url, api_key=key))
    assert checks["key"].status == "fail"
    assert message in checks["key"].message
    assert "assistants" not in checks


def test_right_key_is_ok(guarded: LangGraphServer) -> None:
    checks = checks_of(LangGraphCredentials(url=guarded.url, api_key="the-right-key"))
    assert checks["key"] == Check(name="key", status="ok", message="accepted")


def test_header_of_the_block_that_graphs_do_not_see_is_warned_of(guarded: LangGraphServer) -> None:
    checks = checks_of(
        LangGraphCredentials(url=guarded.url, api_key="the-right-key", headers={"X-User": "ada-5511"})
    )
    assert checks["headers"].status == "warn"
    assert "x-user" in checks["headers"].message
    assert "ada-5511" not in str(checks)


def test_configuration_that_the_server_does_not_follow_fails(guarded: LangGraphServer) -> None:
    checks = checks_of(
        LangGraphCredentials(url=guarded.url, api_key="the-right-key"),
        policy=HeaderPolicy(includes=("x-user-*",)),
    )
    assert checks["headers"].status == "fail"
    assert "x-user-doctor" in checks["headers"].message


def test_doubtful_pattern_is_warned_of(credentials: LangGraphCredentials) -> None:
    checks = checks_of(credentials, policy=HeaderPolicy(includes=("x-*", "X-User")))
    assert checks["langgraph.json"].status == "warn"


def test_older_server_is_warned_of(proxy: Proxy, through_proxy: LangGraphCredentials) -> None:
    def older(answer: dict[str, Any]) -> dict[str, Any]:
        return {**answer, "paths": {path: {} for path in answer["paths"] if "prune" not in path}}

    proxy.on("GET", "/openapi.json", Rewrite(response=older))
    proxy.on("GET", "/info", Rewrite(response=lambda info: {**info, "flags": {"crons": False}}))
    checks = checks_of(through_proxy)
    assert "deleting threads together" in checks["features"].message
    assert checks["crons"].message == "turned off on this server"
    assert {checks["features"].status, checks["crons"].status} == {"warn"}


def test_server_that_tells_nothing_of_itself_is_warned_of(
    proxy: Proxy, through_proxy: LangGraphCredentials
) -> None:
    proxy.on("GET", "/info", Answer(404), times=None)
    assert checks_of(through_proxy)["server"].status == "warn"


def test_what_a_flow_run_left_behind_is_warned_of(
    credentials: LangGraphCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    @flow
    def leaves() -> None:
        start_run("worker", {}, credentials=credentials)

    leaves()
    monkeypatch.setattr(doctor_module, "GRACE_SECONDS", 0.0)
    left = checks_of(credentials)["left behind"]
    assert left.status == "warn"
    assert re.search(r"\d+ threads of \d+ flow runs? that ended", left.message)


@pytest.fixture(scope="module", autouse=True)
def _nobody_suspended(prefect_server: PrefectServer) -> None:
    """What other tests left suspended on the same Prefect is none of these tests' business."""
    paused = FlowRunFilterStateType(any_=[StateType.PAUSED])
    left = FlowRunFilter(state=FlowRunFilterState(type=paused))
    with get_client(sync_client=True) as prefect:
        for flow_run in prefect.read_flow_runs(flow_run_filter=left):
            prefect.delete_flow_run(flow_run.id)


@pytest.fixture
def suspended() -> Iterator[None]:
    """Two flow runs that wait without a process, one of them for a person."""

    @flow
    def waits() -> None:
        """Never executed."""

    with get_client(sync_client=True) as prefect:
        deployment = prefect.create_deployment(prefect.create_flow(waits), "doctor")
        rows = []
        for key in ("langgraph-wait-x.1", "langgraph-form-x"):
            made = prefect.create_flow_run_from_deployment(deployment, state=Pending())
            prefect.set_flow_run_state(made.id, Running())
            prefect.set_flow_run_state(made.id, Suspended(pause_key=key))
            rows.append(made.id)
        yield
        for flow_run_id in rows:
            prefect.delete_flow_run(flow_run_id)


@pytest.mark.usefixtures("suspended")
def test_suspended_flow_run_without_a_resumer_fails_and_a_pass_mends_that(
    credentials: LangGraphCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("prefect_langgraph.suspension.suspended.RESUMER_MINUTES", 0)
        found = checks_of(credentials)["resumer"]
    assert found.status == "fail"
    assert "2 flow runs are suspended, 1 of them for a person, and no resumer" in found.message
    assert "langgraph-resume" in str(found.advice)
    show_sign_of_life()
    assert until(lambda: checks_of(credentials)["resumer"].status == "ok")


def test_old_sdk_fails(credentials: LangGraphCredentials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_module, "version", lambda _: "0.3.9")
    assert checks_of(credentials)["sdk"].status == "fail"


def test_oldest_sdk_is_the_one_that_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (declared,) = [text for text in project["dependencies"] if text.startswith("langgraph-sdk")]
    assert f">={'.'.join(map(str, OLDEST_SDK))}," in declared
    assert numbers_of("1.2.3rc1") == (1, 2, 3)


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("theirs", "expected"), [(0.0, 0.0), (-0.9, 0.0), (2.0, 0.0), (30.0, 28.0), (-31.0, -30.0)]
)
def test_clocks_are_compared_as_far_as_whole_seconds_allow(theirs: float, expected: float) -> None:
    told = NOW + timedelta(seconds=theirs)
    assert skew(told, NOW, NOW + timedelta(seconds=2)) == pytest.approx(expected)


def test_clock_that_is_off_is_told(credentials: LangGraphCredentials) -> None:
    examination = doctor_module.Examination(credentials.connection())
    examination._check_clock("Thu, 01 Jan 2026 00:10:00 GMT", NOW, NOW)
    examination._check_clock("Thu, 01 Jan 2026 00:00:30 GMT", NOW, NOW)
    assert [check.status for check in examination.checks] == ["fail", "warn"]


def test_command_prints_a_line_each_and_exits_with_zero_when_all_is_well(
    run_main: Callable[..., tuple[int, str, str]], credentials: LangGraphCredentials
) -> None:
    status, out, _ = run_main("--url", credentials.url, "--langgraph-json", str(LANGGRAPH_JSON))
    assert status == 0
    lines = out.splitlines()
    assert "ok    key: none given, and none asked for" in lines
    assert all(re.match(r"(ok  |warn|fail)  [a-z. ]+: ", line) for line in lines)
    assert any(line.startswith("ok    prefect: ") for line in lines)


def test_command_exits_with_one_when_something_fails_and_gives_json(
    run_main: Callable[..., tuple[int, str, str]],
) -> None:
    status, out, _ = run_main("--url", "http://127.0.0.1:9", "--json")
    assert status == 1
    assert [check["name"] for check in json.loads(out)] == ["sdk", "prefect", "reachable"]


def test_command_takes_a_saved_block(
    run_main: Callable[..., tuple[int, str, str]], guarded: LangGraphServer
) -> None:
    LangGraphCredentials(url=guarded.url, api_key="the-right-key").save("guarded", overwrite=True)
    status, out, _ = run_main("--block", "guarded")
    assert status == 0
    assert "ok    key: accepted" in out


def test_address_with_a_password_is_refused_and_not_shown(
    run_main: Callable[..., tuple[int, str, str]],
) -> None:
    status, out, err = run_main("--url", "http://ada:pass-5511@localhost:2024")
    assert status == 2
    assert "holds a user or a password" in err
    assert "pass-5511" not in out + err


def test_block_and_url_together_are_refused(run_main: Callable[..., tuple[int, str, str]]) -> None:
    status, _, err = run_main("--url", "http://localhost:2024", "--block", "default")
    assert status == 2
    assert "one of --credentials, --url and --from-env" in err


def test_header_probe_that_is_cut_off_leaves_no_thread(
    proxy: Proxy, through_proxy: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    before = client.threads.count()
    proxy.on("POST", r"/threads/[^/]+/runs$", Answer(422), times=None)
    assert checks_of(through_proxy)["headers"].status == "warn"
    assert client.threads.count() == before
