"""The wheel and the sdist hold what they should, and work where nothing else is installed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Protocol

import pytest

import prefect_langgraph
from prefect_langgraph._version import __version__

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "core": "prefect_langgraph",
    "blocks": "prefect_langgraph/blocks",
    "tasks": "prefect_langgraph/tasks",
    "flows": "prefect_langgraph/flows",
}


class Built(Protocol):
    wheel: Path
    sdist: Path


def package_files() -> dict[str, str]:
    """Map the package's files in the repository to their place in the wheel."""
    return {
        f"{folder}/{inside}": f"{target}/{inside}"
        for folder, target in FOLDERS.items()
        for file in (ROOT / folder).rglob("*")
        for inside in [file.relative_to(ROOT / folder).as_posix()]
        if file.suffix == ".py" or file.name == "py.typed"
    }


def test_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    info = f"prefect_langgraph-{__version__}.dist-info"
    extra = ["METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt", "licenses/LICENSE"]
    with zipfile.ZipFile(built.wheel) as wheel:
        names = set(wheel.namelist())
    assert names == {*package_files().values(), *(f"{info}/{name}" for name in extra)}
    assert "prefect_langgraph/py.typed" in names


def test_sdist_holds_what_builds_the_wheel_and_nothing_else(built: Built) -> None:
    top = f"prefect_langgraph-{__version__}"
    extra = ["CHANGELOG.md", "LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml"]
    # Written by setuptools into every sdist.
    extra += ["setup.cfg"] + [
        f"prefect_langgraph.egg-info/{name}"
        for name in [
            "PKG-INFO",
            "SOURCES.txt",
            "dependency_links.txt",
            "entry_points.txt",
            "requires.txt",
            "top_level.txt",
        ]
    ]
    with tarfile.open(built.sdist) as sdist:
        names = {member.name for member in sdist if member.isfile()}
    assert names == {f"{top}/{name}" for name in [*package_files(), *extra]}


def run(*command: str | Path, cwd: Path) -> str:
    # What this process was given to find its own modules must not help there.
    env = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    ran = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, f"{command} ended with {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


@pytest.fixture(scope="session")
def empty_environment(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a virtual environment that holds the wheel and its requirements, no extras."""
    folder = tmp_path_factory.mktemp("empty")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    wanted = ["--quiet", "-c", str(ROOT / "constraints.txt"), str(built.wheel)]
    uv = [sys.executable, "-m", "uv", "pip", "install", "--python", str(python)]
    if subprocess.run([*uv, *wanted], cwd=folder, capture_output=True, check=False).returncode:
        # uv is ten times as fast, but reads none of pip's configuration: a machine may have an index
        # of its own there.
        run(sys.executable, "-m", "pip", "--python", python, "install", *wanted, cwd=folder)
    return python


IMPORT_ALL = """
import importlib, importlib.metadata, json, pathlib, pkgutil, sys

import prefect_langgraph

site = pathlib.Path(sys.prefix).resolve()
home = pathlib.Path(prefect_langgraph.__file__).resolve()
assert site in home.parents, f"imported {home}, which is not installed in {site}"
names = json.loads(sys.argv[1])
missing = [name for name in names if not hasattr(prefect_langgraph, name)]
assert not missing, missing
assert sorted(prefect_langgraph.__all__) == sorted(names)
modules = [m.name for m in pkgutil.walk_packages(prefect_langgraph.__path__, "prefect_langgraph.")]
for module in modules:
    if module != "prefect_langgraph.testing.plugin":  # needs pytest, which is an extra
        importlib.import_module(module)
entries = {e.group: e for e in importlib.metadata.distribution("prefect-langgraph").entry_points}
assert sorted(entries) == ["console_scripts", "prefect.collections"], entries
entries["prefect.collections"].load()
print(len(names), len(modules))
"""


@pytest.mark.parametrize("where", ["elsewhere", "repository"])
def test_wheel_in_an_empty_environment_gives_every_public_name(
    empty_environment: Path, tmp_path: Path, where: str
) -> None:
    names = json.dumps(prefect_langgraph.__all__)
    cwd = ROOT if where == "repository" else tmp_path
    names_count, modules_count = run(empty_environment, "-c", IMPORT_ALL, names, cwd=cwd).split()
    assert int(names_count) > 0
    assert int(modules_count) == len([f for f in package_files() if not f.endswith("py.typed")]) - 1


def test_import_does_not_load_the_servers(empty_environment: Path, tmp_path: Path) -> None:
    loaded = run(
        empty_environment,
        "-c",
        "import sys, prefect_langgraph.testing; print(*sys.modules)",
        cwd=tmp_path,
    ).split()
    assert not {"pytest", "langgraph_api", "langgraph_cli", "prefect.server"} & set(loaded)


def pinned(*names: str) -> dict[str, str]:
    """Versions by package; where several files pin one, the first file counts."""
    found: dict[str, str] = {}
    for name in names:
        for line in (ROOT / name).read_text().splitlines():
            package, _, version = line.partition("==")
            found.setdefault(package, version)
    return found


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-oldest.txt"])
def test_constraints_are_plain_versions(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    plain = r"[a-z0-9][a-z0-9._-]*==[a-z0-9.+!]+"
    assert [line for line in lines if not re.fullmatch(plain, line)] == []
    assert lines == sorted(set(lines))


@pytest.mark.parametrize("package", ["prefect", "langgraph-sdk"])
def test_oldest_version_that_is_supported_is_the_one_that_test_oldest_runs(package: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (wanted,) = (line for line in project["dependencies"] if re.match(rf"{package}\b[^-]", line))
    oldest = pinned("constraints-oldest.txt", "constraints.txt")[package]
    assert re.findall(r">=([0-9.]+)", wanted) == [oldest]
