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


def end(process: subprocess.Popen) -> int:
    """Asks a server to end; gives its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode


class Stoa:
    """A homeserver process of our own."""

    def __init__(self, binary: Path, config: str, registration='mode = "open"', limits="enabled = false"):
        self.folder = tempfile.TemporaryDirectory(prefix="stoa-conformance-")
        self.log = Path(self.folder.name) / "log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        config_file = Path(self.folder.name) / "stoa.toml"
        data = Path(self.folder.name) / "data"
        parts = {"{port}": str(self.port), "{data}": str(data), "{registration}": registration, "{limits}": limits}
        lines = [line for line in config.splitlines() if not line.startswith("#")]
        text = "\n".join(lines)
        for mark, value in parts.items():
            text = text.replace(mark, value)
        config_file.write_text(text)
        # Options by environment would win over the file.
        env = {k: v for k, v in os.environ.items() if not k.startswith("STOA_")}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(binary), "serve", "--config", str(config_file)],
                stdout=log, stderr=subprocess.STDOUT, cwd=self.folder.name, env=env,
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
        code = end(self.process)
        self.folder.cleanup()
        return code
