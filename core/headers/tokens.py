"""Short-lived tokens: fetched when a request needs one, shared, and used until they expire."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import shlex
import subprocess
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from pydantic import AwareDatetime, Field, SecretStr

from prefect_langgraph.models import Model

COMMAND_SECONDS = 60.0
"""How long a token command may take."""

TOKEN_SECONDS = 300.0
"""How long a token is used of which nobody knows when it expires."""

_MARGIN_SECONDS = 30.0
_UNAUTHORIZED = 401


class TokenError(httpx.ConnectError):
    """No token came, so that the request was not sent. It may come later."""


class Token(Model):
    """A token for a deployment, and until when it is good.

    Attributes:
        value: The token.
        expires_at: When it expires; None where that is not known: it is used for five minutes then.
        header: The header that it is sent in.
        scheme: What stands before it in the header; empty for nothing.

    Example:
        >>> from prefect_langgraph import Token
        >>> Token(value="not-a-real-token").header
        'Authorization'
    """

    value: SecretStr = Field(min_length=1)
    expires_at: AwareDatetime | None = None
    header: str = Field(default="Authorization", min_length=1)
    scheme: str = "Bearer"

    @property
    def headers(self) -> dict[str, str]:
        """The header by which it is sent."""
        return {self.header: f"{self.scheme} {self.value.get_secret_value()}".strip()}


def token_from(output: str, now: datetime) -> Token:
    """The token that a command printed: alone, or as JSON with its expiry.

    Args:
        output: `access_token` or `token`, and `expires_in` in seconds or `expires_at` as ISO 8601, in a
            JSON object; or the token alone. A JSON Web Token says itself when it expires.
        now: The time.

    Raises:
        ValueError: There is no token in it.
    """
    text = output.strip()
    if text.startswith("{"):
        given = json.loads(text)
        value = str(given.get("access_token") or given.get("token") or "")
        expires_at = given.get("expires_at")
        if given.get("expires_in") is not None:
            expires_at = now + timedelta(seconds=float(given["expires_in"]))
        return Token(value=SecretStr(value), expires_at=expires_at or _expiry_in(value))
    if len(text.split()) != 1:
        raise ValueError("what it printed is no token")
    return Token(value=SecretStr(text), expires_at=_expiry_in(text))


def _expiry_in(token: str) -> datetime | None:
    """When a JSON Web Token expires, as it says itself; None of what is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return datetime.fromtimestamp(float(claims["exp"]), UTC)
    except (binascii.Error, ValueError, KeyError, TypeError, OverflowError):
        return None


def run_token_command(command: str) -> Token:
    """The token that a command prints. It runs without a shell, and what it says is never shown.

    Raises:
        TokenError: It failed, took too long, or printed none.
    """
    words = shlex.split(command)
    try:
        done = subprocess.run(  # noqa: S603 - the block's owner says what runs
            words, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
        )
    except (OSError, UnicodeDecodeError) as error:
        raise TokenError(f"the token command {words[0]!r}: {type(error).__name__}") from None
    except subprocess.TimeoutExpired:
        said = f"the token command {words[0]!r} took longer than {COMMAND_SECONDS:g} s"
        raise TokenError(said) from None
    if done.returncode != 0:
        raise TokenError(f"the token command {words[0]!r} ended with status {done.returncode}")
    try:
        return token_from(done.stdout, datetime.now(UTC))
    except (ValueError, TypeError, AttributeError):
        raise TokenError(f"the token command {words[0]!r} printed no token") from None


class Tokens:
    """The token of one block, which all its clients share. May be used on any OS thread.

    Args:
        fetch: Fetches a token; None is none, and a text is a token of which nobody knows the expiry.
        key: Equal for tokens that can stand for each other; tells nothing of secrets.
    """

    def __init__(self, fetch: Callable[[], Token | str | None], key: str) -> None:
        self._fetch = fetch
        self.key = key
        self._lock = threading.Lock()
        self._token: Token | None = None
        self._good_until: datetime | None = None
        self._values: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return "Tokens()"

    @property
    def secrets(self) -> tuple[str, ...]:
        """The newest tokens, which may never be shown."""
        return self._values

    def held(self) -> Token | None:
        """The token that is good now, without fetching one."""
        good = self._good_until is not None and datetime.now(UTC) < self._good_until
        return self._token if good else None

    def get(self, refused: Token | None = None) -> Token | None:
        """A token that is good, fetched where there is none; None where the block has none.

        Args:
            refused: One that the deployment did not take: another is fetched.

        Raises:
            TokenError: None came.
        """
        with self._lock:
            held = self.held()
            if held is not None and held != refused:
                return held
            return self._fetched()

    def _fetched(self) -> Token | None:
        try:
            found = self._fetch()
            token = Token(value=SecretStr(found)) if isinstance(found, str) else found
            if token is not None and not isinstance(token, Token):
                raise TypeError
        except TokenError:
            raise
        except Exception as error:
            raise TokenError(f"get_token raised {type(error).__name__}") from error
        if token is None:
            return None
        self._values = (token.value.get_secret_value(), *self._values)[:2]
        now = datetime.now(UTC)
        ends = token.expires_at or now + timedelta(seconds=TOKEN_SECONDS)
        # Not to the last moment: a request takes its time, and clocks differ.
        margin = min(timedelta(seconds=_MARGIN_SECONDS), (ends - now) / 10)
        self._token, self._good_until = token, ends - margin
        return token


class TokenAuth(httpx.Auth):
    """Sends a block's token with each request, and another once where it is refused.

    Args:
        tokens: The block's.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._fetching = asyncio.Lock()

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """For a synchronous client."""
        token = self._tokens.get()
        is_own = token is None or token.header in request.headers  # the caller's own comes first
        response = yield request if is_own else _with(request, token)
        if not is_own and response.status_code == _UNAUTHORIZED:
            other = self._tokens.get(refused=token)
            if other != token:
                yield _with(request, other)

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """For an asynchronous client, whose loop goes on while a token is fetched."""
        token = self._tokens.held() or await self._get(None)
        is_own = token is None or token.header in request.headers
        response = yield request if is_own else _with(request, token)
        if not is_own and response.status_code == _UNAUTHORIZED:
            other = await self._get(token)
            if other != token:
                yield _with(request, other)

    async def _get(self, refused: Token | None) -> Token | None:
        async with self._fetching:  # or each request would hold an OS thread while one fetches
            return await asyncio.to_thread(self._tokens.get, refused)


def _with(request: httpx.Request, token: Token | None) -> httpx.Request:
    if token is not None:
        request.headers.update(token.headers)
    return request


def key_of_fields(kind: type[Any], fields: Mapping[str, Any]) -> str:
    """What tells the tokens of one block from those of another."""

    def plain(value: Any) -> str:
        return repr(value.get_secret_value() if hasattr(value, "get_secret_value") else value)

    said = [f"{kind.__module__}.{kind.__qualname__}", *(f"{k}={plain(v)}" for k, v in fields.items())]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()
