"""Run a program that never ends until it says that it is at work: `stay.py WORDS PROGRAM ...`.

Then it is stopped as a service manager stops it, by SIGTERM, and is killed where it goes on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

# `support` is not on a script's path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.waiting import PATIENCE

GRACE_SECONDS = 20


def main(words: str, command: list[str]) -> int:
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert process.stdout is not None
    # Ends a program that says something else, or nothing.
    watchdog = threading.Timer(PATIENCE, os.killpg, (process.pid, signal.SIGKILL))
    watchdog.start()
    said = ""
    try:
        for line in process.stdout:
            said += line
            if words in line:
                break
        else:
            print(f"ended without saying {words!r}:\n{said}", file=sys.stderr)  # noqa: T201
            return 1
        watchdog.cancel()
        # Once in a while Prefect's worker goes on all the same.
        watchdog = threading.Timer(GRACE_SECONDS, os.killpg, (process.pid, signal.SIGKILL))
        watchdog.start()
        os.killpg(process.pid, signal.SIGTERM)
        # Its last lines must not fill the pipe.
        rest = process.stdout.read()
        process.wait()
        print(said, rest)  # noqa: T201
        return 0
    finally:
        watchdog.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
