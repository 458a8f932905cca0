"""Records as inputs of flow runs, which Prefect keeps until the flow run is deleted."""

from __future__ import annotations

from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.exceptions import PrefectHTTPStatusError

from prefect_langgraph.suspension.record import Record, inputs_of, parts_of, record_of


async def load(client: PrefectClient, flow_run_id: UUID, name: str) -> Record | None:
    """The record with this name, or None when the flow run has none.

    Raises:
        UnknownRecordError: A later version of the package wrote it.
        httpx.HTTPError: Prefect could not be asked.
    """
    try:
        head = await client.read_flow_run_input(flow_run_id, name)
        parts = [await client.read_flow_run_input(flow_run_id, key) for key in parts_of(head)]
    except PrefectHTTPStatusError as error:
        if error.response.status_code == httpx.codes.NOT_FOUND:
            return None
        raise
    return record_of(name, head, parts)


async def save(client: PrefectClient, flow_run_id: UUID, record: Record) -> Record:
    """Store a record, unless there is one by this name; the one that is stored.

    Safe to repeat: parts are named by what is in them, and only the first head counts.
    """
    exists = False
    for key, value in inputs_of(record):
        try:
            await client.create_flow_run_input(flow_run_id, key, value)
        except PrefectHTTPStatusError as error:
            if error.response.status_code != httpx.codes.CONFLICT:
                raise
            exists = key == record.name
    if not exists:
        return record
    return await load(client, flow_run_id, record.name) or record
