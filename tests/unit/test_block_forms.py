"""The forms of the blocks in Prefect's UI: fields in a sensible order, each named and explained."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import metadata
from typing import Any

import pytest
from prefect.blocks.core import Block

from prefect_langgraph import LangGraphAssistant, LangGraphCredentials

# From the top: what is needed, what is often given, what is rarely touched.
FORMS: dict[type[Block], list[str]] = {
    LangGraphCredentials: [
        "URL",
        "API key",
        "Headers",
        "Maximum connections",
        "Request timeout",
        "Patience",
        "Header policy",
        "Token command",
        "Trace URL",
        "Studio URL",
    ],
    LangGraphAssistant: ["Credentials", "Assistant", "Config", "Context", "Metadata"],
}


def in_order(properties: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Fields as the UI shows them."""
    return sorted(properties.items(), key=lambda item: int(item[1]["position"]))


def every_form() -> list[tuple[str, dict[str, Any]]]:
    """The schema of each block and of each object within one, by its name."""
    found: dict[str, dict[str, Any]] = {}
    for block in FORMS:
        schema = block.model_json_schema()
        found |= {block.__name__: schema, **schema.get("definitions", {})}
    return list(found.items())


@pytest.mark.parametrize("block", FORMS)
def test_fields_are_titled_and_in_their_order(block: type[Block]) -> None:
    fields = in_order(block.model_json_schema()["properties"])
    assert [field["title"] for _, field in fields] == FORMS[block]
    # In code and where JSON keeps its order it is the same one.
    assert [name for name, _ in fields] == list(block.model_fields)


@pytest.mark.parametrize(("name", "schema"), every_form())
def test_every_field_is_explained_in_words_for_people(name: str, schema: dict[str, Any]) -> None:
    for field, shown in in_order(schema["properties"]):
        assert shown["description"].endswith("."), field
        made_up = field.replace("_", " ").title()  # what pydantic says when nobody gives a title
        assert shown["title"] != made_up or "_" not in field, field
    assert ">>>" not in schema["description"]
    assert schema["description"].endswith(".")


def test_what_is_needed_comes_first_and_the_rest_has_defaults() -> None:
    for block in FORMS:
        schema = block.model_json_schema()
        fields = [name for name, _ in in_order(schema["properties"])]
        assert fields[: len(schema["required"])] == schema["required"]


def test_secrets_are_entered_as_secrets() -> None:
    schema = LangGraphCredentials.model_json_schema()
    assert schema["secret_fields"] == ["api_key", "headers.*"]
    key = schema["properties"]["api_key"]
    # Prefect's new pages mask no field that may be null as well.
    assert (key["type"], key["format"]) == ("string", "password")
    assert not {"anyOf", "default"} & set(key)
    assert "api_key" not in schema["required"]


def test_credentials_of_an_assistant_are_chosen_among_the_saved_ones() -> None:
    schema = LangGraphAssistant.model_json_schema()
    reference = schema["block_schema_references"]["credentials"]
    assert reference["block_type_slug"] == LangGraphCredentials.get_block_type_slug()


@pytest.mark.parametrize("block", FORMS)
def test_block_is_presented_with_a_name_a_picture_and_code(block: type[Block]) -> None:
    assert block.get_block_type_name().startswith("LangGraph ")
    assert (block.get_description() or "").endswith(".")
    example = block.get_code_example() or ""
    # Prefect's pages draw Markdown.
    assert example.startswith("```python\n")
    assert example.endswith("\n```")
    assert f'{block.__name__}.load("BLOCK_NAME")' in example
    assert example.count("BLOCK_NAME") == 1  # the pages put a block's name in place of the first
    compile(example.removeprefix("```python\n").removesuffix("```"), "example", "exec")
    documented = dict(
        line.split(", ", 1) for line in metadata("prefect-langgraph").get_all("Project-URL") or []
    )
    assert str(getattr(block, "_documentation_url", "")) == documented["Documentation"]
    assert str(getattr(block, "_logo_url", "")).startswith("https://")
