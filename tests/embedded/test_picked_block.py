"""A block that is picked in Prefect's UI: in a form, and in a flow run's parameters as a reference."""

from __future__ import annotations

import asyncio
import uuid

import httpx
import pytest

from prefect_langgraph import LangGraphAssistant, LangGraphCredentials, LangGraphError
from prefect_langgraph.flows.finalizer import connection_of
from prefect_langgraph.testing import PrefectServer


def test_credentials_are_picked_in_the_form_of_an_assistant(prefect_server: PrefectServer) -> None:
    LangGraphAssistant.register_type_and_schema()
    kind = httpx.get(f"{prefect_server.api_url}/block_types/slug/langgraph-assistant").json()
    wanted = {"block_schemas": {"block_type_id": {"any_": [kind["id"]]}}}
    schemas = httpx.post(f"{prefect_server.api_url}/block_schemas/filter", json=wanted).json()
    fields = schemas[0]["fields"]
    # Prefect files a block's definition under its title, and asks for JSON where it finds none.
    name = fields["properties"]["credentials"]["$ref"].removeprefix("#/definitions/")
    assert fields["definitions"][name]["block_type_slug"] == "langgraph-credentials"


def test_finalizer_connects_with_the_block_that_was_picked(prefect_server: PrefectServer) -> None:
    name = f"picked-{uuid.uuid4().hex[:8]}"
    block = LangGraphCredentials(url="http://localhost:2024", api_key="lsv2_pt_s3cr3t")
    picked = {"$ref": {"block_document_id": str(block.save(name))}}
    assert asyncio.run(connection_of(picked)) == block.connection()


def test_block_that_was_picked_and_is_gone_is_an_error_that_says_so(
    prefect_server: PrefectServer,
) -> None:
    picked = {"$ref": {"block_document_id": str(uuid.uuid4())}}
    with pytest.raises(LangGraphError, match="picked for the flow run is gone"):
        asyncio.run(connection_of(picked))
