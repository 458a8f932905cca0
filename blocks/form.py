"""How Prefect's pages show a block: its picture and its documentation."""

from __future__ import annotations

from typing import Final

LOGO_URL: Final = "https://avatars.githubusercontent.com/u/126733545"
"""LangChain's. Prefect takes an address of the web and no `data:`, so nothing that comes along."""
DOCUMENTATION_URL: Final = "https://github.com/prefect-langgraph/prefect-langgraph/tree/main/docs"
