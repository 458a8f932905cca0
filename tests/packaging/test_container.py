"""The install line of the worker's image, in an environment where nothing else is."""

from __future__ import annotations

import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from support.dockerfile import command, lines_of

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = runpy.run_path(str(ROOT / "tests" / "packaging" / "installed.py"))


def test_image_installs_the_package_and_finds_its_program(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    wheel: Path = request.getfixturevalue("built").wheel
    copied = tmp_path / "install"
    copied.mkdir()
    [files] = [line for line in lines_of("COPY") if line.endswith(" /tmp/install/")]
    assert files.split()[:-1] == ["constraints.txt", "dist/*.whl"]
    shutil.copy(ROOT / "constraints.txt", copied)
    shutil.copy(wheel, copied)
    INSTALLED["run"](sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"

    [line] = [line for line in lines_of("RUN") if line.startswith("pip install")]
    # What uv fetched once it keeps; pip and uv read the rest alike.
    words = shlex.split(line.replace("--no-cache-dir ", ""))[2:]
    there = [Path(word).name if word.startswith("/") else word for word in words]
    found = [str(wheel) if word == "*.whl" else word for word in there]
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python]
    INSTALLED["run"](*uv, *found, cwd=copied)

    INSTALLED["check"](python, tmp_path)
    assert (python.parent / command()[0]).is_file()
