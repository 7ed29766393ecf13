"""Starts the stoa binary for a run and stops it: temporary data, a free port of loopback, registration open."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Stoa:
    """A homeserver process of our own."""

    def __init__(self, binary: Path, config: str):
        self.folder = tempfile.TemporaryDirectory(prefix="stoa-conformance-")
        self.log = Path(self.folder.name) / "log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        config_file = Path(self.folder.name) / "stoa.toml"
        config_file.write_text(config.format(port=self.port, data=Path(self.folder.name) / "data"))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(binary), "serve", "--config", str(config_file)],
                stdout=log, stderr=subprocess.STDOUT, cwd=self.folder.name, env=dict(os.environ),
            )  # fmt: skip

    def wait(self, seconds: float = 60) -> None:
        """Until it answers; with the log when it does not."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise SystemExit(f"stoa ended with {self.process.returncode}:\n{self.tail()}")
            try:
                with urllib.request.urlopen(f"{self.url}/_matrix/client/versions", timeout=5):
                    return
            except OSError:
                time.sleep(0.1)
        raise SystemExit(f"stoa did not answer within {seconds:.0f} s:\n{self.tail()}")

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.folder.cleanup()
        return self.process.returncode
