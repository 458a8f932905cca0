"""Forms and what was put in them, as inputs of flow runs, which Prefect keeps."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import httpx
import orjson
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRunInput
from prefect.exceptions import PrefectHTTPStatusError
from prefect.input import keyset_from_base_key
from pydantic import ValidationError

from prefect_langgraph.approvals.record import Form, Submitted
from prefect_langgraph.suspension.suspended import FORM_PREFIX

_PAGE = 100
_RESPONSE, _SCHEMA, _DESCRIPTION = "response", "schema", "description"


def keyset_of(form: Form) -> dict[str, str]:
    """Where Prefect keeps the form and its response."""
    return {str(name): key for name, key in keyset_from_base_key(form.keyset_base).items()}


async def create(client: PrefectClient, flow_run_id: UUID, key: str, value: Any) -> bool:
    """Store an input once; False when there is one by this key."""
    try:
        await client.create_flow_run_input(flow_run_id, key, orjson.dumps(value).decode())
    except PrefectHTTPStatusError as error:
        if error.response.status_code == httpx.codes.CONFLICT:
            return False
        raise
    return True


async def save(client: PrefectClient, flow_run_id: UUID, form: Form) -> None:
    """Store what a form asks, before anybody sees it."""
    await create(client, flow_run_id, form.name, form.model_dump(mode="json"))


async def show(client: PrefectClient, flow_run_id: UUID, form: Form) -> bool:
    """Store what Prefect's UI makes the form of; False when it was there."""
    keys = keyset_of(form)
    await create(client, flow_run_id, keys[_DESCRIPTION], form.page)
    return await create(client, flow_run_id, keys[_SCHEMA], form.model.model_json_schema(by_alias=True))


async def submit_by_deadline(client: PrefectClient, flow_run_id: UUID, form: Form) -> None:
    """Store the deadline's response, of a form that nobody is shown."""
    response = form.without_person(form.by_deadline)
    await create(client, flow_run_id, keyset_of(form)[_RESPONSE], response)


async def has_response(client: PrefectClient, flow_run_id: UUID, form: Form) -> bool:
    """True when the form was submitted."""
    key = keyset_of(form)[_RESPONSE]
    return any(row.key == key for row in await _inputs(client, flow_run_id, key))


async def load(client: PrefectClient, flow_run_id: UUID, name: str) -> Form | None:
    """The form with this name, or None where there is none that can be read."""
    rows = await _inputs(client, flow_run_id, name)
    return next((form for row in rows if row.key == name and (form := _form(row))), None)


async def forms_of(client: PrefectClient, flow_run_id: UUID) -> list[Submitted]:
    """The forms of a flow run, each with what it was submitted with."""
    forms = [form for row in await _inputs(client, flow_run_id, FORM_PREFIX) if (form := _form(row))]
    if not forms:
        return []
    responses: dict[str, FlowRunInput] = {}
    for pause in ("suspended", "paused"):
        rows = await _inputs(client, flow_run_id, f"{pause}-{FORM_PREFIX}")
        responses |= {row.key: row for row in rows}
    found = []
    for form in forms:
        response = responses.get(keyset_of(form)[_RESPONSE])
        if response is None:
            found.append(Submitted(form, None, None))
        else:
            found.append(Submitted(form, response.decoded_value, response.created))
    return found


async def deadline_of(
    client: PrefectClient, flow_run_id: UUID, name: str, deadline: datetime
) -> datetime:
    """The deadline of the first execution that asked for one by this name."""
    if await create(client, flow_run_id, name, deadline.isoformat()):
        return deadline
    return datetime.fromisoformat(orjson.loads(await client.read_flow_run_input(flow_run_id, name)))


def _form(row: FlowRunInput) -> Form | None:
    try:
        return Form.model_validate_json(row.value)
    except ValidationError:
        return None  # of a later version of the package: what it asked is asked again


async def _inputs(client: PrefectClient, flow_run_id: UUID, prefix: str) -> list[FlowRunInput]:
    found: dict[str, FlowRunInput] = {}
    while True:
        page = await client.filter_flow_run_input(flow_run_id, prefix, _PAGE, set(found))
        found |= {row.key: row for row in page}
        if len(page) < _PAGE:
            return list(found.values())
