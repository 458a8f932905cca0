"""Check with mypy --strict what users import, and code that uses it: the built wheel, unpacked.

mypy finds neither an editable installation nor `core/` as `prefect_langgraph`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from building import ROOT, build


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="prefect-langgraph-types-") as name:
        folder = Path(name)
        wheel, _ = build(folder)
        installed = folder / "installed"
        zipfile.ZipFile(wheel).extractall(installed)
        if not (installed / "prefect_langgraph" / "py.typed").is_file():
            print("The wheel has no py.typed: type checkers would ignore it.")  # noqa: T201
            return 1
        mypy = [
            sys.executable,
            "-m",
            "mypy",
            f"--config-file={ROOT / 'pyproject.toml'}",
            f"--cache-dir={ROOT / '.mypy_cache'}",
        ]
        users = sorted(str(file) for file in (ROOT / "examples").glob("*.py"))
        failed = False
        for what in (["-p", "prefect_langgraph"], users):
            if what:
                env = {**os.environ, "MYPYPATH": str(installed)}
                ran = subprocess.run([*mypy, *what], cwd=installed, env=env, check=False)
                failed = failed or ran.returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
