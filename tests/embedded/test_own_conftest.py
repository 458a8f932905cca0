"""What `tests/conftest.py` adds to pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("import pytest\ndef test_one(): pytest.skip('on purpose')\n", 5),
        ("", 5),
        ("def test_one(): pass\n", 0),
    ],
    ids=["all-skipped", "none", "one"],
)
def test_run_that_tests_nothing_fails(tmp_path: Path, body: str, status: int) -> None:
    (tmp_path / "test_some.py").write_text(body)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "conftest", "--rootdir", ".", "test_some.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == status, ran.stdout + ran.stderr
