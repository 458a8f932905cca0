"""The command line, as a person and as CI call it."""

from __future__ import annotations

import json
import os
import pty
import re
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
from support.waiting import PATIENCE

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


def on_terminal(*words: str) -> list[str]:
    """What a command shows on a terminal of 80 columns, by line and without its colours."""
    ours, theirs = pty.openpty()
    ended = subprocess.run(
        [*CLI, *words],
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
        stdout=theirs,
        stderr=subprocess.PIPE,
        timeout=PATIENCE,
    )
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert ended.returncode == 0, ended.stderr
    return re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\r", "").split("\n")


def test_table_on_a_terminal_fits_it(specs: Path, langgraph_server: LangGraphServer) -> None:
    shown = on_terminal("crons", "plan", str(specs), "--owner", OWNER, "--url", langgraph_server.url)
    assert any("┃" in line for line in shown)
    assert any("digest" in line for line in shown)
    assert all(len(line) <= 80 for line in shown)


def test_what_does_not_fit_a_terminal_is_shown_whole_one_below_the_other(
    specs: Path, crons: Any, langgraph_server: LangGraphServer
) -> None:
    """`crons delete` needs the ids, and a person copies them."""
    assert crons("apply", str(specs), "--owner", OWNER).returncode == 0
    [cron] = json.loads(crons("list", "--owner", OWNER, "--json").stdout)
    shown = on_terminal("crons", "list", "--owner", OWNER, "--url", langgraph_server.url)
    assert any(cron["cron_id"] in line.split() for line in shown)
    assert any(cron["assistant_id"] in line.split() for line in shown)
    assert all(len(line) <= 80 for line in shown)


def test_wrong_id_is_noticed_before_any_cron_is_deleted(
    specs: Path, crons: Any, client: SyncLangGraphClient
) -> None:
    assert crons("apply", str(specs), "--owner", OWNER).returncode == 0
    [cron] = client.crons.search(metadata={"prefect_cron_owner": OWNER})
    refused = crons("delete", cron["cron_id"], "typo", "0191d9f0")
    assert refused.returncode == 2
    assert "typo" in refused.stderr
    assert "0191d9f0" in refused.stderr
    assert client.crons.count(metadata={"prefect_cron_owner": OWNER}) == 1
    twice = json.loads(crons("delete", cron["cron_id"], cron["cron_id"], "--json").stdout)
    assert twice == [{"cron": cron["cron_id"], "was": "deleted"}]


def test_crons_of_a_graph_are_those_of_all_its_assistants(
    crons: Any, client: SyncLangGraphClient
) -> None:
    other = client.assistants.create("worker", name="cli-tests")["assistant_id"]
    made = [
        client.crons.create(assistant, schedule="0 9 1 1 *", metadata={"prefect_cron_owner": OWNER})
        for assistant in ("worker", other, "answer")
    ]
    ids = [cron["cron_id"] for cron in made]
    try:
        listed = {
            assistant: [
                cron["cron_id"]
                for cron in json.loads(crons("list", "--assistant", assistant, "--json").stdout)
                if cron["cron_id"] in ids
            ]
            for assistant in ("worker", other, "answer")
        }
    finally:
        for cron_id in ids:
            client.crons.delete(cron_id)
        client.assistants.delete(other)
    assert listed == {"worker": ids[:2], other: ids[1:2], "answer": ids[2:]}


def test_graph_that_there_is_not_is_told_from_one_without_crons(crons: Any) -> None:
    ended = crons("list", "--assistant", "no-such-graph")
    assert ended.returncode == 2
    assert "no-such-graph" in ended.stderr


@pytest.mark.parametrize(
    "option", ["--grace-seconds=inf", "--grace-seconds=nan", "--grace-seconds=1e300"]
)
def test_grace_that_is_no_time_is_refused(
    option: str, prefect_server: PrefectServer, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["crons", "sweep", option])
    assert ended.value.code == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "grace" in error


def test_hint_is_in_the_words_of_the_command_line(
    prefect_server: PrefectServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["crons", "list"], ["crons", "sweep"], ["doctor"]):
        with pytest.raises(SystemExit) as ended:
            main([*words, "--credentials", "cli-none"])
        assert ended.value.code == 2
        (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert "'cli-none'" in error
        assert "give --credentials." in error


def test_completion_is_written_for_the_shell_and_names_the_commands(tmp_path: Path) -> None:
    ended = cli("--install-completion", HOME=str(tmp_path), SHELL="/bin/bash")
    assert ended.returncode == 0, ended.stderr
    (script,) = [file for file in tmp_path.rglob("*") if "prefect-langgraph" in file.name]
    source = f"source {script}; complete -p prefect-langgraph"
    shown = subprocess.run(["bash", "-c", source], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "doctor" in script.read_text()


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
