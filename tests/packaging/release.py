"""Build and check what goes to PyPI, and say how it gets there: `make release`. Uploads nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from building import ROOT, build
from installed import check, install

TAGGED = re.compile(r"\d+(\.\d+)*((a|b|rc)\d+)?")


def say(text: str) -> None:
    print(f"make release: {text}", flush=True)  # noqa: T201


def next_step(version: str, files: tuple[Path, Path]) -> str:
    """What is left for a person to do."""
    if TAGGED.fullmatch(version):
        changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
        dated = re.search(rf"^## {re.escape(version)}, \d{{4}}-\d\d-\d\d$", changes, re.MULTILINE)
        before = "" if dated else f"Put the date of {version} into CHANGELOG.md and tag again. Then "
        names = " ".join(f"dist/{file.name}" for file in files)
        return f"{before}upload both: python -m twine upload {names}"
    return (
        f"{version} is not for PyPI, since this commit has no tag or something is not committed. All "
        "is well with it otherwise. Commit, `git tag v1.2.3`, and make release again."
    )


def main(out: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="prefect-langgraph-release-") as name:
        folder = Path(name)
        say("building the wheel and the sdist")
        (folder / "built").mkdir()
        files = build(folder / "built")
        say("twine check: the metadata, and the README as PyPI shows it")
        subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *files], check=True)
        say("installing the wheel into an empty environment, importing everything")
        version = check(install(files[0], folder), folder)
        # Only now, so that what lies in dist/ has passed; and nothing older beside it.
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(folder / "built", out)
    say(next_step(version, files))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist")
