"""The page on the command line shows what each command says of itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from prefect_langgraph.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "command-line.md"
SHOWN = re.compile(
    r"```text\n\$ prefect-langgraph (?P<command>[a-z ]*)--help\n(?P<help>.*?)\n```", re.DOTALL
)
COMMANDS = re.compile(r"^│ (?P<name>[a-z]+) ", re.MULTILINE)


def shown() -> dict[str, str]:
    """What the page shows, by command."""
    return {
        found["command"].strip(): found["help"] for found in SHOWN.finditer(PAGE.read_text("utf-8"))
    }


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    return "\n".join(line.rstrip() for line in capsys.readouterr().out.strip().splitlines())


@pytest.fixture(autouse=True)
def _terminal_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.mark.parametrize("command", shown())
def test_help_on_the_page_is_what_the_command_prints(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown()[command] == help_of(command, capsys)


def test_every_command_is_on_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    top = set(COMMANDS.findall(help_of("", capsys)))
    groups = {"approvals", "crons"}
    below = {f"{group} {name}" for group in groups for name in COMMANDS.findall(help_of(group, capsys))}
    assert top == {*groups, "doctor", "resume"}
    assert below
    assert {"", *top, *below} == set(shown())
