"""The version is the tag of the commit, and no tag, no history and no git is needed to install."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import prefect_langgraph

ROOT = Path(__file__).resolve().parents[2]
BUILDING = runpy.run_path(str(ROOT / "tests" / "packaging" / "building.py"))


def run(*command: str, cwd: Path) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "SETUP"))}
    ran = subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def git(*words: str, cwd: Path) -> None:
    who = ["-c", "user.name=tests", "-c", "user.email=tests@example.com", "-c", "tag.gpgSign=false"]
    run("git", *who, "-c", "commit.gpgSign=false", *words, cwd=cwd)


def version_of(source: Path) -> str:
    """The version of a wheel that is built there as pip and build do."""
    out = source.parent / "wheels"
    shutil.rmtree(out, ignore_errors=True)
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(out)]
    run(*build, str(source), cwd=source.parent)
    (wheel,) = out.iterdir()
    return wheel.name.split("-")[1]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What is in the repository, without its history."""
    folder = tmp_path / "copy"
    for name in BUILDING["repository_files"]():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    return folder


@pytest.fixture
def clone(copy: Path) -> Path:
    """The same as a repository of one commit."""
    git("init", "-q", cwd=copy)
    git("add", "-A", cwd=copy)
    git("commit", "-q", "-m", "first", cwd=copy)
    return copy


def test_commit_with_a_tag_has_its_version(clone: Path) -> None:
    git("tag", "v1.2.3", cwd=clone)
    assert version_of(clone) == "1.2.3"


def test_commit_after_a_tag_is_on_the_way_to_the_next_version(clone: Path) -> None:
    git("tag", "v1.2.3", cwd=clone)
    git("commit", "-q", "--allow-empty", "-m", "second", cwd=clone)
    assert re.fullmatch(r"1\.2\.4\.dev1\+g[0-9a-f]+", version_of(clone))


def test_clone_without_tags_can_be_installed(clone: Path) -> None:
    assert re.match(r"0\.1\.0\.dev\d+\+g[0-9a-f]+|0\.1\.dev\d+\+g[0-9a-f]+", version_of(clone))


def test_source_without_git_can_be_installed(copy: Path) -> None:
    assert version_of(copy) == "0.1.0.dev0"


def test_sdist_keeps_its_version_and_holds_nothing_but_what_builds_the_wheel(clone: Path) -> None:
    git("tag", "v1.2.3", cwd=clone)
    build = [sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", "../sdist", "."]
    run(*build, cwd=clone)
    (file,) = (clone.parent / "sdist").iterdir()
    assert file.name == "prefect_langgraph-1.2.3.tar.gz"
    with tarfile.open(file) as sdist:
        sdist.extractall(clone.parent / "unpacked", filter="data")
    source = clone.parent / "unpacked" / "prefect_langgraph-1.2.3"
    folders = {"core", "blocks", "tasks", "flows", "prefect_langgraph.egg-info"}
    assert {path.name for path in source.iterdir() if path.is_dir()} == folders
    assert version_of(source) == "1.2.3"


def test_version_of_the_package_is_the_installed_one() -> None:
    from importlib.metadata import version

    from prefect_langgraph._version import __version__

    assert prefect_langgraph.__version__ == __version__ == version("prefect-langgraph")


def test_metadata_says_where_the_project_lives() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(project["urls"]) == {"Homepage", "Documentation", "Changelog", "Issues", "Source"}
    assert all(url.startswith("https://") for url in project["urls"].values())


NextStep = Callable[[str, tuple[Path, Path]], str]


@pytest.fixture
def next_step(monkeypatch: pytest.MonkeyPatch) -> NextStep:
    monkeypatch.syspath_prepend(ROOT / "tests" / "packaging")
    return runpy.run_path(str(ROOT / "tests" / "packaging" / "release.py"))["next_step"]


def test_release_says_what_to_upload_only_of_a_tagged_commit(next_step: NextStep) -> None:
    files = (Path("a-1.2.3-py3-none-any.whl"), Path("a-1.2.3.tar.gz"))
    said = next_step("1.2.3", files)
    assert said.endswith("twine upload dist/a-1.2.3-py3-none-any.whl dist/a-1.2.3.tar.gz")
    for version in ("0.1.0.dev12+gabc", "1.2.4.dev0+gabc.d20260101", "1.2.3+local"):
        assert "is not for PyPI" in next_step(version, files)
        assert "twine" not in next_step(version, files)
