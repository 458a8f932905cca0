"""A block that is picked in Prefect's UI: in a form, and in a flow run's parameters as a reference."""

from __future__ import annotations

import asyncio
import uuid

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.utilities.callables import parameter_schema

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


def test_key_that_is_removed_is_removed_where_the_block_is_saved(prefect_server: PrefectServer) -> None:
    name = f"removed-{uuid.uuid4().hex[:8]}"
    LangGraphCredentials(url="http://localhost:2024", api_key="lsv2_pt_s3cr3t").save(name)
    LangGraphCredentials(url="http://localhost:2024").save(name, overwrite=True)
    loaded = LangGraphCredentials.load(name)
    assert isinstance(loaded, LangGraphCredentials)
    assert loaded.api_key is None


@pytest.mark.parametrize("key", [None, "lsv2_pt_s3cr3t"])
def test_block_that_was_not_saved_fits_the_form_of_a_deployment(
    prefect_server: PrefectServer, key: str | None
) -> None:
    @flow
    def ask(credentials: LangGraphCredentials) -> None:
        """Take a block."""

    block = LangGraphCredentials(url="http://localhost:2024", api_key=key)
    with get_client(sync_client=True) as client:
        made = client.create_deployment(
            flow_id=client.create_flow(ask),
            name=f"ask-{uuid.uuid4().hex[:8]}",
            enforce_parameter_schema=True,
            parameter_openapi_schema=parameter_schema(ask).model_dump_for_openapi(),
        )
        # Refused where a parameter does not fit.
        client.create_flow_run_from_deployment(
            made, parameters=ask.serialize_parameters({"credentials": block})
        )


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
