"""Runs a program in the foreground, in the process group of whoever asks for it.

python -m support.run_program PROGRAM [ARGUMENT ...]
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import FrameType


def main(command: list[str]) -> int:
    # By PYTHONPATH this module was found; a program has modules of its own.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # In this process group: what ends the group ends the program.
    program = subprocess.Popen(command, env=env)

    def pass_on(number: int, frame: FrameType | None) -> None:
        program.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    return program.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
