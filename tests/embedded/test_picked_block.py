"""A block that was picked in Prefect's UI, which a flow run's parameters hold as a reference."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from prefect_langgraph import LangGraphCredentials, LangGraphError
from prefect_langgraph.flows.finalizer import connection_of
from prefect_langgraph.testing import PrefectServer


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
