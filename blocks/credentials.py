"""How to reach a LangGraph deployment, as a Prefect block."""

from __future__ import annotations

import os
import shlex
import threading
import time
from collections import OrderedDict
from dataclasses import replace
from functools import partial
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
from langgraph_sdk.client import LangGraphClient, SyncLangGraphClient
from prefect.blocks.core import Block, UnknownBlockType
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.types import SecretDict
from pydantic import (
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from prefect_langgraph.arguments import check_text
from prefect_langgraph.blocks.form import DOCUMENTATION_URL, LOGO_URL
from prefect_langgraph.errors import InvalidRequestError, LangGraphError
from prefect_langgraph.headers import HeaderPolicy, Token, validate_headers
from prefect_langgraph.headers.tokens import Tokens, key_of_fields, run_token_command
from prefect_langgraph.links import check_template
from prefect_langgraph.logs import run_logger
from prefect_langgraph.models import OneValue, refuse_quietly
from prefect_langgraph.transport.connection import Connection
from prefect_langgraph.transport.loop import io_loop

DEFAULT_BLOCK = "default"
SECRETS = ("api_key", "headers")
"""The fields that hold secrets."""
_KEY_VARIABLES = ("LANGGRAPH_API_KEY", "LANGSMITH_API_KEY", "LANGCHAIN_API_KEY")
_URL_VARIABLES = ("LANGGRAPH_API_URL", "LANGGRAPH_URL")
# Long enough for a .map of thousands to ask Prefect once, short enough for a rotated key.
_REMEMBER_SECONDS = 60.0
_READ_AGAIN_SECONDS = 5.0
_REMEMBERED_ADDRESSES = 1000
_REMEMBERED_TOKENS = 100
# What Prefect's API gives in place of a block: refusals, no answer, and answers that are no JSON.
_UNREADABLE = (PrefectException, httpx.HTTPError, ValueError)


def is_for_another_process(info: SerializationInfo) -> bool:
    """True when Prefect writes down a flow's parameters for the process that gets one of its tasks.

    It asks for the secrets then, as it does to save a block; that is written down in another way.
    """
    asks = (info.context or {}).get("include_secrets") is True
    return asks and info.exclude_unset and info.mode == "python"


def _as_password(schema: dict[str, Any]) -> None:
    """Make the field of the key one that Prefect's new pages mask: a string that may be absent.

    A string or null, as pydantic has it, is typed in clear there. Without a default Prefect still takes
    null for it, where it holds parameters against the schema; with the default null it does not.
    """
    del schema["anyOf"], schema["default"]
    schema |= {"type": "string", "format": "password", "writeOnly": True, "position": 1}


class LangGraphCredentials(OneValue, Block):  # type: ignore[misc]
    """Where a LangGraph deployment is, and the secrets it asks for.

    Save one, and give tasks its name: a name maps without `unmapped`, works in other processes and
    in hooks, and no secret travels with it. Nor does one with the block itself: in another process
    `api_key` and `headers` are None, and what uses a saved block takes them from Prefect; a block
    that was not saved is of use there only when it has no secrets. Keys are taken from the
    environment only by `from_env`.

    Example:
        >>> from prefect_langgraph import LangGraphCredentials
        >>> block = LangGraphCredentials(url="http://localhost:2024", api_key="not-a-real-key")
        >>> "not-a-real-key" in repr(block)
        False
    """

    _block_type_name = "LangGraph Credentials"
    _block_type_slug = "langgraph-credentials"
    _logo_url = LOGO_URL  # type: ignore[assignment]
    _description = "Address and secrets of a LangGraph deployment (LangSmith or self-hosted)."
    _documentation_url = DOCUMENTATION_URL  # type: ignore[assignment]
    # Prefect's pages draw Markdown: the example of the docstring, without a fence, is an empty box.
    _code_example = """```python
from prefect import flow
from prefect_langgraph import LangGraphCredentials, run_stateless

@flow
def ask(question: str):
    credentials = LangGraphCredentials.load("BLOCK_NAME")
    return run_stateless("answer", {"question": question}, credentials=credentials)
```"""

    # What pydantic refuses may be a secret in the wrong field.
    model_config = ConfigDict(hide_input_in_errors=True)
    _refuse_quietly = model_validator(mode="wrap")(refuse_quietly)

    # `position` is the order of the UI's form: a Prefect server on PostgreSQL keeps none of its own.
    url: str = Field(
        title="URL",
        description="Address of the LangGraph deployment, such as https://agents.example.com. "
        "No user or password in it.",
        examples=["http://localhost:2024"],
        json_schema_extra={"position": 0},
    )
    api_key: SecretStr | None = Field(
        default=None,
        title="API key",
        description="Sent as x-api-key. Leave empty for a server without keys.",
        json_schema_extra=_as_password,
    )
    # Not a dictionary of secrets: those Prefect's API would show to everybody.
    headers: SecretDict | None = Field(
        default=None,
        title="Headers",
        description='Sent with every request, such as {"X-Gateway-Token": "..."}. The values are '
        "secret. The API key has its own field.",
        json_schema_extra={"position": 2},
    )
    max_connections: int = Field(
        default=32,
        gt=0,
        title="Maximum connections",
        description="Size of the connection pool, which all runs of a process share.",
        json_schema_extra={"position": 3},
    )
    timeout_seconds: float = Field(
        default=60.0,
        gt=0,
        title="Request timeout",
        description="Seconds that one request may be silent. Runs may take longer.",
        json_schema_extra={"position": 4},
    )
    patience_seconds: float = Field(
        default=30.0,
        gt=0,
        title="Patience",
        description="Seconds that a call goes on while the deployment is not there or overloaded. "
        "A wait for a run goes on until its own max_wait_seconds.",
        json_schema_extra={"position": 5},
    )
    header_policy: HeaderPolicy | None = Field(
        default=None,
        title="Header policy",
        description="What the headers of a request that makes a run are held against, before it is "
        "sent: which of them graphs see, and which must not leave.",
        json_schema_extra={"position": 6},
    )
    token_command: str | None = Field(
        default=None,
        title="Token command",
        description="Prints a short-lived token, such as gcloud auth print-access-token; it is sent as "
        "Authorization: Bearer, and fetched anew before it expires. It runs where the block is used, "
        "without a shell. No secret in it.",
        json_schema_extra={"position": 7},
    )
    trace_url: str | None = Field(
        default=None,
        title="Trace URL",
        description="The page of a run's trace, with {run_id} in it, such as "
        "https://smith.langchain.com/o/ORGANISATION/projects/p/PROJECT/r/{run_id}. Logs, errors and "
        "reports lead there. {thread_id}, {assistant_id} and {url} are filled in too.",
        json_schema_extra={"position": 8},
    )
    studio_url: str | None = Field(
        default=None,
        title="Studio URL",
        description="The page of a thread in a Studio of your own, with {thread_id} in it. Leave empty "
        "for LangSmith's.",
        json_schema_extra={"position": 9},
    )

    # The secrets that did not come along into this process.
    _left_behind: tuple[str, ...] = PrivateAttr(default=())

    def __init_subclass__(cls, **options: Any) -> None:
        # A subclass is a block type of its own. Under the name of this one Prefect would load it for
        # every saved block.
        if "_block_type_name" not in vars(cls):
            cls._block_type_name = cls.__name__
        if "_block_type_slug" not in vars(cls):
            cls._block_type_slug = ""  # made of the name
        super().__init_subclass__(**options)

    def __init__(
        self,
        url: str | None = None,
        api_key: SecretStr | str | None = None,
        headers: dict[str, SecretStr] | dict[str, str] | None = None,
        **data: Any,
    ) -> None:
        given = {"url": url, "api_key": api_key, "headers": headers}
        super().__init__(**data, **{name: value for name, value in given.items() if value is not None})

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        # The value may hold a password, so no message shows it.
        url = url.strip()
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError:
            raise ValueError("the url cannot be read: give one like http://localhost:2024") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the url must begin with http:// or https:// and name a host")
        if "@" in parts.netloc:
            raise ValueError("the url holds a user or a password: use api_key or headers instead")
        if parts.query or parts.fragment:
            raise ValueError("the url must not have a query or a fragment")
        return url.rstrip("/")

    @field_validator("api_key")
    @classmethod
    def _empty_is_none(cls, api_key: SecretStr | None) -> SecretStr | None:
        # What a form sends once a key was typed and deleted.
        return api_key if api_key is not None and api_key.get_secret_value() else None

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: SecretDict | None) -> SecretDict | None:
        return SecretDict(validate_headers(headers.get_secret_value())) if headers is not None else None

    @field_validator("token_command")
    @classmethod
    def _check_token_command(cls, command: str | None) -> str | None:
        if command is None or not command.strip():
            return None  # what a form sends once something was typed and deleted
        try:
            words = shlex.split(command)
        except ValueError:
            raise ValueError("the token command cannot be split into words: close its quotes") from None
        if not words:
            raise ValueError("the token command names no program")
        return command.strip()

    @field_validator("trace_url", "studio_url")
    @classmethod
    def _check_template(cls, template: str | None, info: ValidationInfo) -> str | None:
        if template is None or not template.strip():
            return None
        return check_template(template, "run_id" if info.field_name == "trace_url" else "thread_id")

    @model_validator(mode="after")
    def _check_one_authorization(self) -> Self:
        names = self.headers.get_secret_value() if self.headers is not None else ()
        if self.token_command is not None and "authorization" in {name.lower() for name in names}:
            raise ValueError("headers and token_command both give Authorization: give one")
        return self

    def get_token(self) -> Token | str | None:
        """A short-lived token for the deployment, or None for none.

        A subclass that fetches tokens otherwise than by `token_command` overrides this. It is called on
        an OS thread, once for all requests that need a token, before the last one expires and when the
        deployment refuses it with 401. What it raises fails the request, which is tried again within
        the block's patience. A text is a token of which nobody knows the expiry: it is used for five
        minutes. Nobody but the deployment sees it.

        Example:
            >>> from prefect_langgraph import LangGraphCredentials, Token
            >>> class FetchedCredentials(LangGraphCredentials):
            ...     def get_token(self) -> Token:
            ...         return Token(value="fetched somewhere")
            >>> FetchedCredentials(url="http://localhost:2024").get_token().scheme
            'Bearer'
        """
        return run_token_command(self.token_command) if self.token_command is not None else None

    @classmethod
    def from_env(cls, **fields: Any) -> Self:
        """Build a block from the environment, for those who ask for it.

        Reads the url from LANGGRAPH_API_URL or LANGGRAPH_URL, and the key from LANGGRAPH_API_KEY,
        LANGSMITH_API_KEY or LANGCHAIN_API_KEY, the first that is set. Nothing is sent.

        Args:
            fields: Fields of the block; they win over the environment.

        Raises:
            InvalidRequestError: There is no url.

        Example:
            >>> import os
            >>> os.environ["LANGGRAPH_API_URL"] = "http://localhost:2024"
            >>> LangGraphCredentials.from_env().url
            'http://localhost:2024'
        """

        def first(names: tuple[str, ...]) -> str | None:
            return next((os.environ[name] for name in names if os.environ.get(name)), None)

        found = {"url": first(_URL_VARIABLES), "api_key": first(_KEY_VARIABLES)}
        merged = {**{name: value for name, value in found.items() if value}, **fields}
        if "url" not in merged:
            raise InvalidRequestError(
                f"No url: set {' or '.join(_URL_VARIABLES)}, or give url= to from_env."
            )
        return cls(**merged)

    def __getstate__(self) -> dict[Any, Any]:
        # Task runners and stored results pickle what they are given. A field that there is not may
        # hold a misspelt secret.
        state = super().__getstate__()
        fields, private = dict(state["__dict__"]), dict(state["__pydantic_private__"] or {})
        if held := tuple(name for name in SECRETS if fields.get(name) is not None):
            fields |= dict.fromkeys(held)
            private["_left_behind"] = held
        return {
            **state,
            "__dict__": fields,
            "__pydantic_extra__": {},
            "__pydantic_private__": private,
        }

    @model_serializer(mode="wrap")
    def ser_model(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> Any:
        """Serialize as every block, but without secrets in what Prefect sends to other processes."""
        shown = super().ser_model(handler, info)
        if not is_for_another_process(info):
            return shown
        return {name: value for name, value in shown.items() if name not in SECRETS}

    @property
    def left_behind(self) -> tuple[str, ...]:
        """The fields whose secrets did not come along from another process."""
        return self._left_behind

    @property
    def saved_name(self) -> str | None:
        """The name this block was saved or loaded under, or None.

        That of a subclass begins with the slug of its block type: `our-credentials/prod`.
        """
        name = self._block_document_name
        if name is None or type(self) is LangGraphCredentials:
            return name
        return f"{type(self).get_block_type_slug()}/{name}"

    def connection(self) -> Connection:
        """The connection that tasks use. Its repr shows no secret.

        Raises:
            LangGraphError: The block came from another process and was not saved.
        """
        if self.left_behind:
            return io_loop().run(resolve, self)
        return Connection(
            url=self.url,
            api_key=self.api_key.get_secret_value() if self.api_key is not None else None,
            headers=tuple(self.headers.get_secret_value().items()) if self.headers is not None else (),
            name=self.saved_name,
            max_connections=self.max_connections,
            timeout_seconds=self.timeout_seconds,
            patience_seconds=self.patience_seconds,
            header_policy=self.header_policy,
            tokens=_tokens_of(self),
            trace_url=self.trace_url,
            studio_url=self.studio_url,
        )

    def get_client(self) -> LangGraphClient:
        """A new SDK client for the caller's event loop. Close it, or use it with `async with`.

        The tasks share one pooled client and do not use this. No key is read from the environment.

        Example:
            >>> client = LangGraphCredentials(url="http://localhost:2024").get_client()
        """
        return self.connection().async_client()

    def get_sync_client(self) -> SyncLangGraphClient:
        """A new synchronous SDK client. Close it, or use it in a `with` block.

        Example:
            >>> with LangGraphCredentials(url="http://localhost:2024").get_sync_client() as client:
            ...     pass
        """
        return self.connection().sync_client()


Credentials = LangGraphCredentials | str | None
"""A block, a saved block's name, or None for the saved block named `default`."""

_tokens: OrderedDict[str, Tokens] = OrderedDict()
_tokens_lock = threading.Lock()


def _tokens_of(block: LangGraphCredentials) -> Tokens | None:
    """The tokens that equal blocks share; None of a block that never has one."""
    fetches = type(block).get_token is not LangGraphCredentials.get_token
    if not fetches and block.token_command is None:
        return None
    fields = {name: getattr(block, name) for name in type(block).model_fields}
    key = key_of_fields(type(block), fields)
    with _tokens_lock:
        if key not in _tokens:
            _tokens[key] = Tokens(block.get_token, key)
        _tokens.move_to_end(key)
        while len(_tokens) > _REMEMBERED_TOKENS:
            _tokens.popitem(last=False)
        return _tokens[key]


# By name: the block, and until when it is not read again.
_loaded: dict[str, tuple[float, LangGraphCredentials]] = {}
_unsaved: dict[str, list[LangGraphCredentials]] = {}


async def resolve(credentials: Credentials) -> Connection:
    """The connection for what a caller gave as `credentials`.

    Raises:
        LangGraphError: There is no saved block of that name.
    """
    if isinstance(credentials, LangGraphCredentials):
        block = await _with_secrets(credentials)
        if block.saved_name is None:
            _remember_unsaved(block)
        return _rereadable(block)
    if credentials is not None and not isinstance(credentials, str):
        raise InvalidRequestError(
            f"credentials is a {type(credentials).__name__}: give a LangGraphCredentials block, the "
            "name of a saved one, or None for the one named 'default'."
        )
    name = credentials or DEFAULT_BLOCK
    check_text("credentials", name)
    return _rereadable(await _saved(name))


def _remember_unsaved(block: LangGraphCredentials) -> None:
    """Remember a block for the handles that are made with it, which hold its address only."""
    known = _unsaved.pop(block.url, [])
    # Which of several is meant a handle cannot tell, so that two are as good as a thousand.
    _unsaved[block.url] = known if block in known else [*known, block][-2:]
    while len(_unsaved) > _REMEMBERED_ADDRESSES:
        del _unsaved[next(iter(_unsaved))]


def _rereadable(block: LangGraphCredentials) -> Connection:
    """The connection of a block, which finds the block's new secrets should the old ones be refused."""
    connection = block.connection()
    if block.saved_name is None:
        return connection
    return replace(connection, reread=partial(_reread, block.saved_name))


async def _reread(name: str) -> Connection | None:
    """The connection of a block as it is saved now; None where that cannot be learned."""
    try:
        return _rereadable(await _load(name))
    except (LangGraphError, *_UNREADABLE):
        return None


async def _load(name: str) -> LangGraphCredentials:
    try:
        # A name with a slug is of a subclass, whose module has to be imported by then.
        block = await (Block if "/" in name else LangGraphCredentials).aload(name)
    except UnknownBlockType:
        raise LangGraphError(
            f"The block {name!r} is of a class that this process does not know: import its module."
        ) from None
    except ValueError as error:
        if not isinstance(error.__cause__, ObjectNotFound):
            raise
        raise LangGraphError(
            f"There is no saved LangGraphCredentials block named {name!r}. Save one with "
            f"LangGraphCredentials(url=...).save({name!r}), or give credentials=."
        ) from error
    if not isinstance(block, LangGraphCredentials):
        raise InvalidRequestError(
            f"The block {name!r} is a {type(block).__name__}, and no LangGraphCredentials."
        )
    _loaded[name] = (time.monotonic() + _REMEMBER_SECONDS, block)
    return block


async def _saved(name: str) -> LangGraphCredentials:
    good_until, remembered = _loaded.get(name, (0.0, None))
    if remembered is not None and time.monotonic() < good_until:
        return remembered
    try:
        return await _load(name)
    except _UNREADABLE as error:
        if remembered is None:
            raise
        # What was read before is likely still right; where it is not, the deployment says so.
        run_logger().warning(
            "The block %r could not be read again (%s); going on as it was", name, type(error).__name__
        )
        _loaded[name] = (time.monotonic() + _READ_AGAIN_SECONDS, remembered)
        return remembered


async def _with_secrets(block: LangGraphCredentials) -> LangGraphCredentials:
    """The block with the secrets that stayed behind when it was sent to this process."""
    if not block.left_behind:
        return block
    if block.saved_name is None:
        raise LangGraphError(
            f"The LangGraphCredentials block for {block.url} came from another process without its "
            f"{' and '.join(block.left_behind)}: no secret is pickled. It was not saved, so Prefect "
            "cannot be asked for them. Save the block and give its name as credentials=."
        )
    saved = await _saved(block.saved_name)
    if saved.url != block.url:
        # Its secrets are for another place.
        raise InvalidRequestError(
            f"The block named {block.saved_name!r} came from another process with the url {block.url}, "
            f"and the saved one leads to {saved.url}. Save it again, or give its name as credentials=.",
            url=block.url,
        )
    whole = block.model_copy(update={name: getattr(saved, name) for name in block.left_behind})
    whole._left_behind = ()
    return whole


async def resolve_for(url: str, name: str | None, credentials: Credentials) -> Connection:
    """The connection for a handle with this url and block name.

    Raises:
        LangGraphError: The handle was made with an unsaved block in another process.
    """
    if credentials is not None or name is not None:
        connection = await resolve(credentials if credentials is not None else name)
    else:
        known = _unsaved.get(url, [])
        if len(known) != 1:
            reason = "several such blocks" if known else "no such block"
            raise LangGraphError(
                f"The handle was made with a block that was not saved, and for {url} this process "
                f"knows {reason}. Give credentials=, or save the block and use its name."
            )
        connection = _rereadable(known[0])
    if connection.url != url:
        raise InvalidRequestError(
            f"The handle belongs to {url}, and the credentials lead to {connection.url}.", url=url
        )
    return connection
