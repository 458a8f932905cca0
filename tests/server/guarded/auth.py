"""Custom authentication as LangChain's own recipe has it: everybody sees only what they own."""

from __future__ import annotations

from typing import Any

from langgraph_sdk import Auth

auth = Auth()


@auth.authenticate
async def authenticate(headers: dict[bytes, bytes]) -> Auth.types.MinimalUserDict:
    """Anybody with a key; the key is the name."""
    key = headers.get(b"x-api-key")
    if not key:
        raise Auth.exceptions.HTTPException(status_code=401, detail="Who are you?")
    return {"identity": key.decode()}


@auth.on
async def own(ctx: Auth.types.AuthContext, value: dict[str, Any]) -> dict[str, Any]:
    """Mark what is made with its owner, and filter what is read by it."""
    filters = {"owner": ctx.user.identity}
    value.setdefault("metadata", {}).update(filters)
    return filters


@auth.on.crons
async def no_crons(ctx: Auth.types.AuthContext, value: dict[str, Any]) -> dict[str, Any]:
    """Keep crons from those whose name says so."""
    if ctx.user.identity.endswith("without crons"):
        raise Auth.exceptions.HTTPException(status_code=403, detail="No crons for you.")
    return await own(ctx, value)
