"""Prefect's REST API, asked as its UI asks it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from support.leftovers import logs_of
from support.waiting import PATIENCE, until

ENDED = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}

Row = dict[str, Any]


class Api:
    """What a person sees and does in the UI of a Prefect server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        def served() -> httpx.Response | None:
            answer = httpx.request(method, self.url + path, json=body, timeout=PATIENCE)
            # SQLite was busy: nothing was done, and Prefect's own client asks again as well.
            return answer if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE else None

        answer = until(served)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def form_of(self, flow_run: Row) -> Row:
        """The JSON Schema of the form that a flow run waits for."""
        keys = flow_run["state"]["state_details"]["run_input_keyset"]
        row: Row = self.ask("GET", f"/flow_runs/{flow_run['id']}/input/{keys['schema']}")
        return row

    def block_type(self, slug: str) -> Row:
        row: Row = self.ask("GET", f"/block_types/slug/{slug}")
        return row

    def block_schema(self, slug: str) -> Row:
        """The newest schema of a block type, which is what its form is made of."""
        wanted = {"block_schemas": {"block_type_id": {"any_": [self.block_type(slug)["id"]]}}}
        rows: list[Row] = self.ask("POST", "/block_schemas/filter", wanted)
        return rows[0]

    def fields(self, slug: str) -> list[str]:
        """The fields of a block's form, from its top."""
        properties: dict[str, Row] = self.block_schema(slug)["fields"]["properties"]
        return sorted(properties, key=lambda name: int(properties[name]["position"]))

    def make_block(self, slug: str, name: str, data: Mapping[str, Any]) -> str:
        """Send the form of a block; its id."""
        schema = self.block_schema(slug)
        for old in self.ask("GET", f"/block_types/slug/{slug}/block_documents"):
            if old["name"] == name:
                self.ask("DELETE", f"/block_documents/{old['id']}")
        form = {
            "name": name,
            "data": data,
            "block_type_id": schema["block_type_id"],
            "block_schema_id": schema["id"],
        }
        return str(self.ask("POST", "/block_documents/", form)["id"])

    def deployments(self, tag: str) -> dict[str, Row]:
        rows = self.ask("POST", "/deployments/filter", {"deployments": {"tags": {"all_": [tag]}}})
        return {row["name"]: row for row in rows}

    def flow_name(self, deployment: Row) -> str:
        return str(self.ask("GET", f"/flows/{deployment['flow_id']}")["name"])

    def run(self, deployment: Row, parameters: Mapping[str, Any]) -> str:
        """Press "Run"; the flow run's id."""
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        path = f"/deployments/{deployment['id']}/create_flow_run"
        return str(self.ask("POST", path, body)["id"])

    def flow_run(self, flow_run_id: str) -> Row:
        row: Row = self.ask("GET", f"/flow_runs/{flow_run_id}")
        return row

    def ended(self, flow_run_id: str) -> Row:
        """The flow run, once it has ended."""
        until(lambda: self.flow_run(flow_run_id)["state_type"] in ENDED)
        return self.flow_run(flow_run_id)

    def completed(self, flow_run_id: str) -> Row:
        """The flow run, once it has ended well; otherwise its log."""
        row = self.ended(flow_run_id)
        if row["state_name"] != "Completed":
            log = until(lambda: logs_of(self.url, flow_run_id))
            pytest.fail(f"{row['state_name']}: {row['state']['message']}\n{log}")
        return row

    def artifacts(self, flow_run_id: str) -> list[Row]:
        wanted = {"artifacts": {"flow_run_id": {"any_": [flow_run_id]}}}
        rows: list[Row] = self.ask("POST", "/artifacts/filter", wanted)
        return rows


def name_field(form: Row) -> str:
    """The field for who answers, whose name is its form's own."""
    (name,) = [name for name in form["required"] if name.startswith("answered_by_")]
    return name
