"""Build the wheel and the sdist from what is in the repository: `building.py FOLDER`.

The build happens in a copy: setuptools leaves a `build/` behind whose stale files find their way into
the next wheel, and files that git ignores are nobody's business. The copy has no history, so it is told
the version.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def repository_files() -> list[str]:
    """List what is, or would be, under version control."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def version() -> str:
    """The version that git's tags give what is in the repository."""
    asked = [sys.executable, "-m", "setuptools_scm"]
    return subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def build(out: Path) -> tuple[Path, Path]:
    """Build into an empty folder and give the wheel and the sdist."""
    env = {**os.environ, "SETUPTOOLS_SCM_PRETEND_VERSION_FOR_PREFECT_LANGGRAPH": version()}
    with tempfile.TemporaryDirectory(prefix="prefect-langgraph-build-") as folder:
        for name in repository_files():
            copy = Path(folder, name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy)
        # Without isolation nothing is downloaded: setuptools is among our own requirements.
        ran = subprocess.run(
            [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), folder],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
    if ran.returncode:
        raise SystemExit(f"The build failed:\n{ran.stdout}\n{ran.stderr}")
    (wheel,) = out.glob("*.whl")
    (sdist,) = out.glob("*.tar.gz")
    return wheel, sdist


if __name__ == "__main__":
    for built in build(Path(sys.argv[1])):
        print(built)  # noqa: T201
