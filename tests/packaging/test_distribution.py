"""The wheel and the sdist hold what they should, and work where nothing else is installed."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Protocol

import pytest

import prefect_langgraph

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = Path(__file__).with_name("installed.py")
FOLDERS = {
    "core": "prefect_langgraph",
    "blocks": "prefect_langgraph/blocks",
    "tasks": "prefect_langgraph/tasks",
    "flows": "prefect_langgraph/flows",
}


class Built(Protocol):
    wheel: Path
    sdist: Path


def version_of(built: Built) -> str:
    """The version in the wheel's name."""
    return built.wheel.name.split("-")[1]


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
    info = f"prefect_langgraph-{version_of(built)}.dist-info"
    extra = ["METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt", "licenses/LICENSE"]
    with zipfile.ZipFile(built.wheel) as wheel:
        names = set(wheel.namelist())
    assert names == {*package_files().values(), *(f"{info}/{name}" for name in extra)}
    assert "prefect_langgraph/py.typed" in names


def test_sdist_holds_what_builds_the_wheel_and_nothing_else(built: Built) -> None:
    top = f"prefect_langgraph-{version_of(built)}"
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


@pytest.fixture(scope="session")
def empty_environment(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a virtual environment that holds the wheel and its requirements, no extras."""
    folder = tmp_path_factory.mktemp("empty")
    return Path(run(sys.executable, INSTALLED, built.wheel, folder, cwd=folder).strip())


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    # What this process was given to find its own modules must not help there.
    kept = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    ran = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**kept, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, f"{command} ended with {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


IMPORT_ALL = runpy.run_path(str(INSTALLED))["IMPORT_ALL"]


@pytest.mark.parametrize("where", ["elsewhere", "repository"])
def test_wheel_in_an_empty_environment_gives_every_public_name(
    built: Built, empty_environment: Path, tmp_path: Path, where: str
) -> None:
    cwd = ROOT if where == "repository" else tmp_path
    version, modules, *names = run(empty_environment, "-c", IMPORT_ALL, cwd=cwd).split()
    assert version == version_of(built)
    assert names == sorted(prefect_langgraph.__all__)
    assert int(modules) == len([f for f in package_files() if not f.endswith("py.typed")]) - 1


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
