"""The lines of `examples/container/Dockerfile`, which no machine of the tests can build."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "examples" / "container" / "Dockerfile"


def lines_of(instruction: str) -> list[str]:
    """What stands behind an instruction, each time."""
    lines = DOCKERFILE.read_text(encoding="utf-8").splitlines()
    begin = f"{instruction} "
    return [line.removeprefix(begin) for line in lines if line.startswith(begin)]


def command() -> list[str]:
    """The program that the image runs, without a shell."""
    [line] = lines_of("CMD")
    words: list[str] = json.loads(line)
    return words


def environment() -> dict[str, str]:
    """The variables that the image sets."""
    return dict(line.split("=", 1) for line in lines_of("ENV"))
