"""The command line where Prefect or the deployment is away, refuses, or answers nonsense.

Exit status 1 means "changes" to CI, so whatever goes wrong is one line and 2; doctor says what it is.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
    temporary_settings,
)

from prefect_langgraph import DeploymentError, LangGraphCredentials, search_crons
from prefect_langgraph.cli import main
from prefect_langgraph.testing import LangGraphServer
from support.one_answer import OneAnswer, run_one_answer

NOWHERE = "http://127.0.0.1:9"
CRON_ID = "0191d9f0-0000-7000-8000-000000000000"
ODD = {
    "mapping": OneAnswer("{}"),
    "list": OneAnswer("[]"),
    "null": OneAnswer("null"),
    "text": OneAnswer('"ok"'),
    "number": OneAnswer("1"),
    "status": OneAnswer('{"status": "ok"}'),
    "nested": OneAnswer("[[]]"),
    "rows of nothing": OneAnswer("[{}]"),
    "no content": OneAnswer(status=204),
    "page": OneAnswer("<!DOCTYPE html><html><p>Sign in</p></html>", content_type="text/html"),
    "refusal": OneAnswer('{"detail": "no"}', status=401),
    "date": OneAnswer("{}", date="the day before yesterday"),
    "date without a zone": OneAnswer("{}", date="Thu, 01 Jan 2026 00:10:00 -0000"),
}

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the command line in this process; gives exit status, output and errors."""

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(words)
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    file = tmp_path / "crons.yaml"
    file.write_text("owner: astray\ncrons:\n- {name: a, assistant_id: worker, schedule: 0 9 1 1 *}\n")
    return file


def words_of(command: str, specs: Path) -> list[str]:
    more = {
        "list": [],
        "plan": [str(specs), "--check"],
        "apply": [str(specs)],
        "delete": [CRON_ID],
        "sweep": [],
    }
    return ["crons", command, *more[command]]


def is_one_line(err: str) -> bool:
    """True for one line that says what is wrong; the log of a flow run may stand before it."""
    lines = err.splitlines()
    return sum(line.startswith("error: ") for line in lines) == 1 and "Traceback" not in err


@pytest.mark.parametrize(
    ("command", "prefect"),
    [
        *((command, "away") for command in ("list", "plan", "apply", "delete", "sweep")),
        *(("list", prefect) for prefect in ("mapping", "refusal", "page", "no content")),
        ("sweep", "mapping"),
        ("sweep", "refusal"),
    ],
)
def test_prefect_that_cannot_be_asked_is_one_line_and_status_2(
    command: str, prefect: str, specs: Path, call: Call
) -> None:
    with run_one_answer(ODD.get(prefect, OneAnswer())) as odd:
        url = f"{NOWHERE if prefect == 'away' else odd}/api"
        with temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}):
            status, out, err = call(*words_of(command, specs), "--credentials", f"astray-{prefect}")
    assert (status, out) == (2, "")
    assert is_one_line(err), err
    assert "Prefect" in err
    assert url in err


@pytest.mark.parametrize("prefect", ["away", "mapping", "refusal", "page", "no content"])
def test_doctor_calls_a_prefect_that_cannot_be_asked_a_failure(prefect: str, call: Call) -> None:
    with run_one_answer(ODD.get(prefect, OneAnswer())) as odd:
        url = f"{NOWHERE if prefect == 'away' else odd}/api"
        with temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}):
            status, out, _ = call("doctor", "--block", f"astray-{prefect}", "--json")
    assert status == 1
    (check,) = [check for check in json.loads(out) if check["name"] == "prefect"]
    assert check["status"] == "fail"
    assert url in check["message"]


def test_prefect_that_is_away_is_one_line_of_a_process_too(specs: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "prefect_langgraph.cli", "crons", "plan", str(specs), "--check"],
        env={"PREFECT_API_URL": f"{NOWHERE}/api", "HOME": str(specs.parent)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("error: ")


@pytest.mark.parametrize("command", ["list", "plan", "apply"])
def test_deployment_that_refuses_is_one_line_and_status_2(
    command: str, specs: Path, call: Call
) -> None:
    with run_one_answer(ODD["refusal"]) as url:
        status, out, err = call(*words_of(command, specs), "--url", url)
    assert (status, out) == (2, "")
    assert is_one_line(err), err
    assert url in err


@pytest.mark.parametrize("odd", [odd for odd in ODD if odd != "list"])
def test_nonsense_is_never_taken_for_a_deployment_without_crons(odd: str) -> None:
    with run_one_answer(ODD[odd]) as url, pytest.raises(DeploymentError, match=url):
        search_crons.fn(credentials=LangGraphCredentials(url=url, patience_seconds=0.5))


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("odd", ODD)
def test_doctor_finds_fault_with_a_server_that_answers_nonsense(odd: str, call: Call) -> None:
    with run_one_answer(ODD[odd]) as url:
        status, out, err = call("doctor", "--url", url, "--json")
    assert status == 1, out
    assert "Traceback" not in err
    checks = {check["name"]: check for check in json.loads(out)}
    assert any(check["status"] == "fail" for check in checks.values())
    assert "<" not in out
    if odd == "date":
        assert checks["clock"]["status"] == "warn"
    if odd == "date without a zone":
        assert "behind" in checks["clock"]["message"]


@pytest.mark.usefixtures("prefect_server")
def test_doctor_writes_to_a_terminal_that_knows_only_ascii(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    assert call("doctor", "--url", NOWHERE)[0] == 1
    assert b" -> Check url, network and proxy" in raw.getvalue()


def test_table_is_written_to_a_terminal_that_knows_only_ascii(
    call: Call, langgraph_server: LangGraphServer, specs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs.write_text(
        "owner: astray\ncrons:\n- {name: größe→…, assistant_id: worker, schedule: 0 9 1 1 *}\n", "utf-8"
    )
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    assert call("crons", "plan", str(specs), "--url", langgraph_server.url)[0] == 0
    assert b"gr??e->..." in raw.getvalue()


@pytest.mark.parametrize("output", [["--json"], []])
def test_reader_that_goes_away_is_no_error(
    output: list[str], langgraph_server: LangGraphServer, specs: Path
) -> None:
    many = [
        f"- {{name: cron-{number}, assistant_id: worker, schedule: 0 9 1 1 *}}" for number in range(400)
    ]
    specs.write_text("\n".join(["owner: astray", "crons:", *many]))
    command = [sys.executable, "-m", "prefect_langgraph.cli", "crons", "plan", str(specs), "--check"]
    with subprocess.Popen(
        [*command, "--url", langgraph_server.url, *output],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
    # It did what it was asked: there are changes.
    assert process.returncode == 1
    assert "Traceback" not in err
    assert "BrokenPipe" not in err


def test_machine_without_any_prefect_says_what_is_not_set(call: Call) -> None:
    with temporary_settings(
        {PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: False}, restore_defaults={PREFECT_API_URL}
    ):
        status, _, said = call("approvals", "list")
    assert (status, "PREFECT_API_URL is not set" in said) == (2, True)
    assert len(said.splitlines()) == 1
