"""The shell that documentation shows, and what becomes of a line that no test can run as it stands.

A line runs as it is unless one of `PARTLY` fits it, which says why, and what runs in its place. So no
line is skipped that needs the network or never ends. A line fails unless it ends with 0, or with the
exit status that its comment names.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
STAY = f"{shlex.quote(sys.executable)} {shlex.quote(str(Path(__file__).with_name('stay.py')))}"
THIS = f"{shlex.quote(sys.executable)} {shlex.quote(str(Path(__file__)))}"

# How a page names a clone of this repository, or a wheel that was built in one.
CLONE = re.compile(r"^(\.{1,2}/prefect-langgraph|\.|\S*prefect_langgraph-\S+\.whl)(?=\[|$)")


@dataclass(frozen=True)
class Partly:
    """Lines that run in part.

    Attributes:
        line: What the line looks like.
        why: Why it cannot run as it stands.
        instead: What runs in its place; groups of the pattern are filled in.
    """

    line: str
    why: str
    instead: str


PARTLY = (
    Partly(
        r"(?P<all>langgraph dev .*)--port 2024(?P<more>.*)",
        "never ends, and the port may be taken",
        f"{STAY} 'Application started up' {{all}}--port $FREE_PORT{{more}}",
    ),
    Partly(
        r"prefect server start",
        "never ends, and the port may be taken",
        f"PREFECT_HOME=$PWD/home {STAY} 'Check out' prefect server start --port $FREE_PORT",
    ),
    Partly(
        r"(?P<all>prefect worker start .*)",
        "never ends",
        f"{STAY} 'started!' {{all}}",
    ),
    Partly(
        r"(?P<all>prefect-langgraph resume.*)",
        "never ends",
        f"{STAY} 'Resuming every' {{all}}",
    ),
    Partly(
        r"(?P<all>(pip|uv pip|python -m pip) install .*)",
        "needs the network: that extras exist and bounds agree with ours is looked up",
        f"{THIS} {{all}}",
    ),
    Partly(
        r"python (?P<file>examples/gallery/\w+\.py)",
        "takes half a minute: test_gallery runs each, and reads what it says",
        "test -f {file}",
    ),
    Partly(
        r"make (?P<all>.*)",
        "takes minutes, and tests run in it: make says what it would do",
        f"make --dry-run -C {shlex.quote(str(ROOT))} {{all}} >/dev/null",
    ),
    Partly(r"\.ci/run", "runs these tests", f"bash -n {shlex.quote(str(ROOT))}/.ci/run"),
    Partly(
        r"(?P<all>(docker) .*)",
        "needs a daemon: the files that it names are looked for",
        f"{THIS} {{all}}",
    ),
)


def what_runs(script: str) -> Iterator[tuple[str, Partly | None]]:
    """Give the lines of a block as they run, each with what fits it."""
    for line in script.replace("\\\n", " ").splitlines():
        typed, _, comment = re.sub(r"(^|\s)#", "\n", line, count=1).partition("\n")
        typed = typed.strip()
        if not typed:
            continue
        if (status := re.search(r"exit status (\d+)", comment)) is not None:
            yield f"ended=0; {typed} || ended=$?; test $ended = {status[1]}", None
            continue
        for partly in PARTLY:
            if (match := re.fullmatch(partly.line, typed)) is not None:
                yield partly.instead.format(**match.groupdict()), partly
                break
        else:
            yield typed, None


def run_shell(script: str, *, folder: Path, addresses: Mapping[str, str], port: int) -> str:
    """Run a block of a page in a folder, and give what it printed; any line that fails ends it."""
    text = "\n".join(line for line, _ in what_runs(script))
    for written, real in addresses.items():
        text = text.replace(written, real)
    ran = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", text],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "FREE_PORT": str(port),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, f"{text}\n{ran.stdout}{ran.stderr}"
    return ran.stdout


def check_install(wanted: list[str]) -> None:
    """Hold what is to be installed against what this package says of itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ours = {(found := Requirement(text)).name: found.specifier for text in project["dependencies"]}
    pins = dict(
        line.split("==")
        for name in ("constraints.txt", "constraints-oldest.txt")
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines()
        if "==" in line
    )
    for word in wanted:
        requirement = Requirement(CLONE.sub(project["name"], word))
        if requirement.name == project["name"]:
            unknown = requirement.extras - set(project["optional-dependencies"])
            assert not unknown, f"{word}: there is no extra {unknown}"
        elif (bounds := ours.get(requirement.name)) is not None:
            lowest = [bound.version for bound in bounds if bound.operator == ">="]
            tried = {*lowest, pins[requirement.name]}
            fits = [each for each in tried if each in requirement.specifier and each in bounds]
            assert fits, f"{word} excludes {bounds}"


def check_files(words: list[str]) -> None:
    """Look for the files that a line names."""
    for before, word in itertools.pairwise(words):
        if before in {"-f", "--file", "--filename"}:
            assert Path(word).is_file(), f"{shlex.join(words)}: there is no {word}"


if __name__ == "__main__":
    program, *rest = sys.argv[1:]
    if "install" in rest and program in {"pip", "uv", "python"}:
        after = rest[rest.index("install") + 1 :]
        check_install([word for word in after if not word.startswith("-")])
    else:
        check_files(rest)
