"""Runs PostgreSQL in the foreground, on a new cluster, as somebody who is not root.

    python -m support.run_postgres BINARIES FOLDER PORT

Ends with a clean shutdown on SIGTERM. PostgreSQL refuses to run as root, so root becomes `nobody`.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType


def become_somebody_else(folder: Path) -> None:
    if os.getuid() != 0:
        return
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)


def make_cluster(binaries: Path, data: Path) -> None:
    options = ["--username=prefect", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
    subprocess.run([str(binaries / "initdb"), f"--pgdata={data}", *options], check=True)


def main(binaries: Path, folder: Path, port: str) -> int:
    become_somebody_else(folder)
    data = folder / "data"
    if not data.exists():
        make_cluster(binaries, data)
    # In this process group: what ends the group ends the server.
    server = subprocess.Popen(
        [
            str(binaries / "postgres"),
            "-D",
            str(data),
            "-p",
            port,
            *("-c", "listen_addresses=127.0.0.1"),
            *("-c", "unix_socket_directories="),
            *("-c", "fsync=off"),
        ]
    )

    def shut_down(number: int, frame: FrameType | None) -> None:
        server.send_signal(signal.SIGINT)  # PostgreSQL's "fast": it waits for no client

    signal.signal(signal.SIGTERM, shut_down)
    return server.wait()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
