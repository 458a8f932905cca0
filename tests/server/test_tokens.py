"""A deployment that asks for tokens which live for seconds, and runs that take longer."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prefect import flow
from prefect.blocks.system import Secret as SecretBlock
from pydantic import SecretStr

from prefect_langgraph import (
    AuthenticationError,
    InvalidRequestError,
    LangGraphCredentials,
    LangGraphError,
    Token,
    join_runs,
    run_stateless,
    start_runs,
    stream_run,
    sweep,
    with_finalizer,
)
from prefect_langgraph.testing import LangGraphServer, PrefectServer, run_langgraph_server

WORKER = Path(__file__).resolve().parents[2] / "examples" / "agent" / "worker.py"
AUTH = """
import time

from langgraph_sdk import Auth

auth = Auth()


@auth.authenticate
async def authenticate(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    name, _, until = token.partition("~")
    if scheme != "Bearer" or float(until) < time.time():
        raise Auth.exceptions.HTTPException(status_code=401, detail="expired")
    return name
"""
SECONDS = 3.0


class Counted(LangGraphCredentials):
    """Fetches tokens of three seconds, and writes each down."""

    path: str
    says: bool = True

    def get_token(self) -> Token:
        with Path(self.path).open("a", encoding="utf-8") as file:
            file.write("token\n")
        ends = time.time() + SECONDS
        told = datetime.fromtimestamp(ends, UTC) if self.says else None
        return Token(value=SecretStr(f"ada~{ends}"), expires_at=told)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LangGraphServer]:
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "auth.py").write_text(AUTH, encoding="utf-8")
    config = {
        "dependencies": ["."],
        "graphs": {"worker": f"{WORKER}:worker"},
        "auth": {"path": "./auth.py:auth"},
    }
    (folder / "langgraph.json").write_text(json.dumps(config), encoding="utf-8")
    with run_langgraph_server(folder / "langgraph.json", jobs=10) as server:
        yield server


@pytest.mark.parametrize("says", [True, False], ids=["its expiry is known", "it is refused"])
def test_token_that_expires_in_the_middle_of_a_wait_is_fetched_anew(
    server: LangGraphServer, prefect_server: PrefectServer, tmp_path: Path, says: bool
) -> None:
    fetched = tmp_path / "fetched"
    block = Counted(url=server.url, path=str(fetched), says=says)

    @flow
    def work() -> list[str]:
        handles = start_runs(
            "worker", [{"sleep": 7, "tag": str(n)} for n in range(4)], credentials=block
        )
        return [values["result"] for values in join_runs(handles).values]

    assert work() == ["0", "1", "2", "3"]
    # About one in three seconds, however many requests there were.
    assert 2 <= len(fetched.read_text().splitlines()) <= 12


def test_stream_takes_a_token(
    server: LangGraphServer, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    block = Counted(url=server.url, path=str(tmp_path / "fetched"))
    parts = list(stream_run("worker", {"tag": "a"}, credentials=block))
    assert parts


def test_command_gives_tokens_also_to_hooks_and_sweeps(
    server: LangGraphServer, prefect_server: PrefectServer
) -> None:
    printed = f"dict(token=f'ada~{{time.time() + {SECONDS}}}', expires_in={SECONDS})"
    program = f"import json, time; print(json.dumps({printed}))"
    command = shlex.join([sys.executable, "-c", program])
    LangGraphCredentials(url=server.url, token_command=command).save("tokens", overwrite=True)

    @with_finalizer("tokens", cancel_unfinished=True)
    @flow
    def work() -> None:
        start_runs("worker", [{"sleep": 600}] * 2, credentials="tokens")

    work()
    report = sweep("tokens", grace_seconds=0)
    assert report.entries == ()
    with LangGraphCredentials.load("tokens").get_sync_client() as client:  # type: ignore[union-attr]
        assert client.threads.search() == []


def test_no_token_fails_the_call_in_its_patience(
    server: LangGraphServer, prefect_server: PrefectServer
) -> None:
    command = shlex.join([sys.executable, "-c", "raise SystemExit(4)"])
    block = LangGraphCredentials(url=server.url, token_command=command, patience_seconds=1)

    @flow
    def work() -> None:
        run_stateless.with_options(retries=0)("worker", {"tag": "a"}, credentials=block)

    with pytest.raises(AuthenticationError, match=r"no token for .* ended with status 4"):
        work()


def test_token_that_is_refused_at_once_is_an_authentication_error(
    server: LangGraphServer, prefect_server: PrefectServer
) -> None:
    command = shlex.join([sys.executable, "-c", "print('ada~0')"])
    block = LangGraphCredentials(url=server.url, token_command=command, patience_seconds=1)
    with pytest.raises(AuthenticationError) as caught:
        run_stateless.fn("worker", {"tag": "a"}, credentials=block)
    assert "ada~0" not in str(caught.value)


def test_subclass_is_found_by_its_slug_and_name(
    server: LangGraphServer, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    block = Counted(url=server.url, path=str(tmp_path / "fetched"))
    block.save("prod", overwrite=True)

    @with_finalizer("counted/prod")
    @flow
    def work() -> str:
        (handle,) = start_runs("worker", [{"tag": "a"}], credentials="counted/prod")
        assert handle.credentials == "counted/prod"
        result: str = join_runs([handle]).values[0]["result"]
        return result

    assert work() == "a"
    with pytest.raises(LangGraphError, match="no saved"):
        run_stateless.fn("worker", {}, credentials="counted/other")
    with pytest.raises(LangGraphError, match="no saved"):
        run_stateless.fn("worker", {}, credentials="nobodys-type/prod")
    SecretBlock(value="x").save("odd", overwrite=True)
    with pytest.raises(InvalidRequestError, match="no LangGraphCredentials"):
        run_stateless.fn("worker", {}, credentials="secret/odd")


def test_subclass_that_this_process_does_not_know_is_named(
    server: LangGraphServer, prefect_server: PrefectServer
) -> None:
    program = f"""
from prefect_langgraph import LangGraphCredentials

class Elsewhere(LangGraphCredentials):
    pass

Elsewhere(url={server.url!r}).save("prod")
"""
    env = {**os.environ, "PREFECT_API_URL": prefect_server.api_url}
    subprocess.run([sys.executable, "-c", program], check=True, env=env)
    with pytest.raises(LangGraphError, match="import its module"):
        run_stateless.fn("worker", {}, credentials="elsewhere/prod")
