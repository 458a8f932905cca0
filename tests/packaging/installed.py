"""Install a wheel where nothing else is, and look at it there: `installed.py WHEEL FOLDER`.

Prints the Python of the environment that it made.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

IMPORT_ALL = """
import importlib, importlib.metadata, pathlib, pkgutil, sys

import prefect_langgraph

site = pathlib.Path(sys.prefix).resolve()
home = pathlib.Path(prefect_langgraph.__file__).resolve()
assert site in home.parents, f"imported {home}, which is not installed in {site}"
missing = [name for name in prefect_langgraph.__all__ if not hasattr(prefect_langgraph, name)]
assert not missing, missing
modules = [m.name for m in pkgutil.walk_packages(prefect_langgraph.__path__, "prefect_langgraph.")]
for module in modules:
    if module != "prefect_langgraph.testing.plugin":  # needs pytest, which is an extra
        importlib.import_module(module)
(installed,) = importlib.metadata.distributions(name="prefect-langgraph", path=[str(home.parents[1])])
assert installed.version == prefect_langgraph.__version__, installed.version
entries = {e.group: e for e in installed.entry_points}
assert sorted(entries) == ["console_scripts", "prefect.collections"], entries
entries["prefect.collections"].load()
print(installed.version, len(modules), *sorted(prefect_langgraph.__all__))
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a program as on another machine, and give what it printed."""
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
    if ran.returncode:
        raise SystemExit(f"{command} ended with {ran.returncode}\n{ran.stdout}\n{ran.stderr}")
    return ran.stdout


def install(wheel: Path, folder: Path) -> Path:
    """Make a virtual environment of the wheel and its requirements, no extras, and give its Python."""
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    wanted = ["--quiet", "-c", str(ROOT / "constraints.txt"), str(wheel)]
    uv = [sys.executable, "-m", "uv", "pip", "install", "--python", str(python)]
    if subprocess.run([*uv, *wanted], cwd=folder, capture_output=True, check=False).returncode:
        # uv is ten times as fast, but reads none of pip's configuration: a machine may have an index
        # of its own there.
        run(sys.executable, "-m", "pip", "--python", python, "install", *wanted, cwd=folder)
    return python


def check(python: Path, cwd: Path) -> str:
    """Import every module and public name, start the command line, and give the version."""
    version = run(python, "-c", IMPORT_ALL, cwd=cwd).split()[0]
    shown = run(python.parent / "prefect-langgraph", "--version", cwd=cwd).strip()
    if shown != version:
        raise SystemExit(f"The command line says {shown}, and the wheel is {version}.")
    return version


if __name__ == "__main__":
    made = install(Path(sys.argv[1]), Path(sys.argv[2]))
    check(made, Path(sys.argv[2]))
    print(made)  # noqa: T201
