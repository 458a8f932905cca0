"""The commands that the comments of prefect.yaml tell people to type."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from support.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
MARK = "#   prefect "


def documented(word: str) -> list[str]:
    """The arguments of the one command that begins with `prefect` and this word."""
    lines = (ROOT / "prefect.yaml").read_text(encoding="utf-8").splitlines()
    found = [shlex.split(line.removeprefix(MARK)) for line in lines if line.startswith(MARK)]
    [command] = [arguments for arguments in found if arguments[0] == word]
    return command


def run_documented(word: str, *, folder: Path = ROOT) -> str:
    """Type the command in a folder, without a terminal; what it printed."""
    ran = subprocess.run(
        [sys.executable, "-m", "prefect", *documented(word)],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout
