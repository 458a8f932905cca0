"""The command line, as a person and as CI call it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk.client import SyncLangGraphClient

from prefect_langgraph import LangGraphCredentials
from prefect_langgraph.cli import main
from prefect_langgraph.testing import LangGraphServer, PrefectServer
from waiting import PATIENCE

CLI = [sys.executable, "-m", "prefect_langgraph.cli"]
OWNER = "cli-tests"
CRONS = """
- name: digest
  assistant_id: worker
  schedule: 0 9 1 1 *
  timezone: Asia/Tokyo
  input: {tag: do-not-show}
"""


@pytest.fixture
def specs(tmp_path: Path, client: SyncLangGraphClient) -> Iterator[Path]:
    """A file with one cron, which is deleted after the test."""
    file = tmp_path / "crons.yaml"
    file.write_text(CRONS)
    yield file
    for row in client.crons.search(metadata={"prefect_cron_owner": OWNER}):
        client.crons.delete(row["cron_id"])


@pytest.fixture
def crons(langgraph_server: LangGraphServer) -> Any:
    """Runs `prefect-langgraph crons` against the shared server, where no Prefect is needed."""
    return lambda *words: cli("crons", *words, "--url", langgraph_server.url)


def cli(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CLI, *words],
        env={**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api", **env},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_plan_check_tells_ci_whether_there_are_changes(specs: Path, crons: Any) -> None:
    planned = crons("plan", str(specs), "--owner", OWNER, "--check", "--json")
    assert planned.returncode == 1, planned.stderr
    plan = json.loads(planned.stdout)
    assert [(change["action"], change["name"]) for change in plan["changes"]] == [("create", "digest")]
    assert (plan["has_changes"], plan["applied"]) == (True, False)
    applied = crons("apply", str(specs), "--owner", OWNER, "--json")
    assert applied.returncode == 0, applied.stderr
    assert json.loads(applied.stdout)["applied"]
    assert crons("plan", str(specs), "--owner", OWNER, "--check").returncode == 0
    assert "do-not-show" not in planned.stdout + planned.stderr + applied.stdout + applied.stderr


def test_crons_are_listed_and_deleted_by_id(
    specs: Path,
    crons: Any,
    langgraph_server: LangGraphServer,
    client: SyncLangGraphClient,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def inside(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["crons", *words, "--url", langgraph_server.url])
        assert not ended.value.code
        return capsys.readouterr().out

    inside("apply", str(specs), "--owner", OWNER)
    [cron] = json.loads(crons("list", "--owner", OWNER, "--json").stdout)
    assert (cron["schedule"], cron["timezone"], cron["name"]) == ("0 9 1 1 *", "Asia/Tokyo", "digest")
    table = inside("list", "--assistant", "worker")
    assert f"{OWNER}: digest" in table
    assert cron["cron_id"] in table
    for was in ("deleted", "gone already"):
        deleted = json.loads(inside("delete", cron["cron_id"], "--json"))
        assert deleted == [{"cron": cron["cron_id"], "was": was}]
    assert client.crons.count(metadata={"prefect_cron_owner": OWNER}) == 0


def test_table_on_a_terminal_fits_it(specs: Path, langgraph_server: LangGraphServer) -> None:
    ours, theirs = pty.openpty()
    ended = subprocess.run(
        [*CLI, "crons", "plan", str(specs), "--owner", OWNER, "--url", langgraph_server.url],
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
        stdout=theirs,
        stderr=subprocess.PIPE,
        timeout=PATIENCE,
    )
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert ended.returncode == 0
    assert "┃" in shown
    assert "digest" in shown
    assert all(len(line) <= 80 for line in shown.replace("\r", "").split("\n") if "\x1b" not in line)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("crons", "plan"), "specs"),
        (("crons", "no-such-command"), "no-such-command"),
        (("crons", "delete", "--url", "http://127.0.0.1:9"), "ids"),
        (("crons", "list", "--url", "http://127.0.0.1:9", "--from-env"), "one of"),
        (("crons", "plan", "none.yaml", "--url", "http://127.0.0.1:9"), "none.yaml"),
        (("crons", "list", "--url", "no-url"), "http"),
    ],
)
def test_wrong_call_has_an_exit_status_of_its_own(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert said in printed.err
    assert printed.out == ""


def test_error_is_a_line_and_no_traceback() -> None:
    ended = cli("crons", "list", "--from-env")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: No url")
    assert "Traceback" not in ended.stderr


def test_plan_with_changes_is_no_failure_unless_asked_to_check(
    specs: Path, langgraph_server: LangGraphServer, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["crons", "plan", str(specs), "--owner", OWNER, "--url", langgraph_server.url])
    assert not ended.value.code
    assert "1 to create" in capsys.readouterr().out


def test_address_and_key_come_from_the_environment_only_when_asked_for(
    langgraph_server: LangGraphServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LANGGRAPH_API_URL", langgraph_server.url)
    with pytest.raises(SystemExit) as ended:
        main(["crons", "list", "--from-env", "--json"])
    assert not ended.value.code
    assert isinstance(json.loads(capsys.readouterr().out), list)


def test_sweep_says_what_it_would_do(
    langgraph_server: LangGraphServer, prefect_server: PrefectServer
) -> None:
    LangGraphCredentials(url=langgraph_server.url).save("cli-tests", overwrite=True)  # type: ignore[unused-coroutine]
    ended = cli(
        "crons",
        "sweep",
        "--credentials",
        "cli-tests",
        "--dry-run",
        "--json",
        PREFECT_API_URL=prefect_server.api_url,
    )
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert report["dry_run"] is True
    assert report["grace_seconds"] == 300
