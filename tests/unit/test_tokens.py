"""Short-lived tokens: read from what a command prints, shared, and fetched before they expire."""

from __future__ import annotations

import base64
import json
import pickle
import shlex
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from prefect_langgraph import LangGraphCredentials, Token
from prefect_langgraph.headers import tokens as module
from prefect_langgraph.headers.tokens import TokenError, Tokens, run_token_command, token_from

URL = "http://localhost:2024"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


def web_token(**claims: Any) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{body}.c2ln"


def printing(text: str, *, status: int = 0) -> str:
    """A command that prints a text."""
    program = f"import sys; sys.stdout.write({text!r}); sys.stderr.write('s3cr3t'); sys.exit({status})"
    return shlex.join([sys.executable, "-c", program])


@pytest.mark.parametrize(
    ("output", "value", "expires_at"),
    [
        ("abc\n", "abc", None),
        (web_token(exp=LATER.timestamp()), web_token(exp=LATER.timestamp()), LATER),
        (web_token(sub="a"), web_token(sub="a"), None),
        ("a.b.c", "a.b.c", None),
        ('{"access_token": "abc", "expires_in": 3600}', "abc", LATER),
        ('{"token": "abc", "expires_at": "2026-01-01T01:00:00Z"}', "abc", LATER),
        ('{"access_token": "abc"}', "abc", None),
    ],
)
def test_what_a_command_prints_is_read(output: str, value: str, expires_at: datetime | None) -> None:
    token = token_from(output, NOW)
    assert (token.value.get_secret_value(), token.expires_at) == (value, expires_at)
    assert token.headers == {"Authorization": f"Bearer {value}"}


@pytest.mark.parametrize(
    "output", ["", "two words", "{", "{}", '{"access_token": "a", "expires_at": "soon"}', "[1, 2]"]
)
def test_what_is_no_token_is_refused_without_a_word_of_it(output: str) -> None:
    with pytest.raises(TokenError, match=r"printed no token$"):
        run_token_command(printing(output))


def test_command_that_fails_is_named_without_what_it_said() -> None:
    with pytest.raises(TokenError, match="ended with status 3") as caught:
        run_token_command(printing("s3cr3t", status=3))
    assert "s3cr3t" not in str(caught.value)
    with pytest.raises(TokenError, match="'no-such-program': FileNotFoundError"):
        run_token_command("no-such-program --key s3cr3t")


def test_command_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMAND_SECONDS", 0.5)
    with pytest.raises(TokenError, match=r"longer than 0\.5 s"):
        run_token_command(shlex.join([sys.executable, "-c", "import time; time.sleep(600)"]))


class Counted:
    """Gives tokens, and counts them."""

    def __init__(self, *, seconds: float | None = None) -> None:
        self.count = 0
        self._seconds = seconds
        self._lock = threading.Lock()

    def __call__(self) -> Token:
        with self._lock:
            self.count += 1
        ends = None if self._seconds is None else datetime.now(UTC) + timedelta(seconds=self._seconds)
        return Token(value=SecretStr(f"token-{self.count}"), expires_at=ends)


def test_token_is_fetched_once_for_all_who_need_one() -> None:
    fetch = Counted(seconds=600)
    tokens = Tokens(fetch, "key")
    with ThreadPoolExecutor(16) as pool:
        found = {
            token.value.get_secret_value() for token in pool.map(lambda _: tokens.get(), range(64))
        }
    assert (found, fetch.count) == ({"token-1"}, 1)


def test_token_is_fetched_anew_before_it_expires_and_when_it_is_refused() -> None:
    fetch = Counted(seconds=-1)
    tokens = Tokens(fetch, "key")
    tokens.get()
    assert tokens.held() is None
    tokens.get()
    assert fetch.count == 2
    lasting = Counted(seconds=600)
    tokens = Tokens(lasting, "key")
    first = tokens.get()
    assert tokens.get() is first
    second = tokens.get(refused=first)
    assert second is not first
    assert tokens.get(refused=first) is second, "somebody else has fetched another already"
    assert lasting.count == 2
    assert tokens.secrets == ("token-2", "token-1")


def test_text_is_a_token_and_none_is_none() -> None:
    text = Tokens(lambda: "plain", "key").get()
    assert text is not None
    assert text.headers == {"Authorization": "Bearer plain"}
    assert Tokens(lambda: None, "key").get() is None
    other = Token(value=SecretStr("abc"), header="X-Api-Key", scheme="")
    assert other.headers == {"X-Api-Key": "abc"}


def test_what_get_token_raises_is_named_without_its_words() -> None:
    def fails() -> str:
        raise LookupError("s3cr3t")

    with pytest.raises(TokenError, match=r"get_token raised LookupError$"):
        Tokens(fails, "key").get()
    with pytest.raises(TokenError, match=r"get_token raised TypeError$"):
        Tokens(lambda: 5, "key").get()  # type: ignore[arg-type, return-value]


def test_no_token_is_shown() -> None:
    tokens = Tokens(lambda: "s3cr3t", "key")
    token = tokens.get()
    assert "s3cr3t" not in repr(tokens) + repr(token) + str(token)
    with pytest.raises(ValidationError) as caught:
        Token(value="", expires_at="s3cr3t")  # type: ignore[arg-type]
    assert "s3cr3t" not in str(caught.value)


class Subclassed(LangGraphCredentials):
    """A block of somebody's own."""

    tenant: str = "a"

    def get_token(self) -> Token:
        return Token(value=SecretStr(f"of {self.tenant}"))


def test_subclass_is_a_block_type_of_its_own() -> None:
    assert Subclassed.get_block_type_slug() == "subclassed"
    assert LangGraphCredentials.get_block_type_slug() == "langgraph-credentials"


def test_blocks_share_tokens_when_they_are_equal_and_only_then() -> None:
    first, same, other = (Subclassed(url=URL, tenant=tenant) for tenant in "aab")
    assert first.connection().tokens is same.connection().tokens
    assert first.connection().tokens is not other.connection().tokens
    assert first.connection().fingerprint() == same.connection().fingerprint()
    assert first.connection().fingerprint() != other.connection().fingerprint()
    assert first == same
    assert pickle.loads(pickle.dumps(first)) == first  # noqa: S301 - of our own
    assert LangGraphCredentials(url=URL).connection().tokens is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"token_command": "echo 'abc"}, "close its quotes"),
        ({"token_command": "echo abc", "headers": {"authorization": "x"}}, "give one"),
    ],
)
def test_wrong_token_command_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        LangGraphCredentials(url=URL, **fields)


def test_empty_token_command_is_none() -> None:
    assert LangGraphCredentials(url=URL, token_command="  ").token_command is None
