"""Starts Synapse from a virtual environment: temporary data, a free port of loopback, registration open, no rate limits."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from server import end, free_port

OFF = {"per_second": 1_000_000, "burst_count": 1_000_000}


def settings(folder: Path, port: int) -> dict:
    return {
        "server_name": "localhost",
        "public_baseurl": f"http://127.0.0.1:{port}/",
        "report_stats": False,
        "listeners": [{
            "port": port, "bind_addresses": ["127.0.0.1"], "type": "http", "tls": False,
            "resources": [{"names": ["client"], "compress": False}],
        }],
        "trusted_key_servers": [],
        "suppress_key_server_warning": True,
        "database": {"name": "sqlite3", "args": {"database": str(folder / "homeserver.db")}},
        "media_store_path": str(folder / "media"),
        "pid_file": str(folder / "pid"),
        "signing_key_path": str(folder / "signing.key"),
        "macaroon_secret_key": "of a test", "form_secret": "of a test", "registration_shared_secret": "of a test",
        "enable_registration": True,
        "enable_registration_without_verification": True,
        "bcrypt_rounds": 4,
        "room_list_publication_rules": [{"action": "allow"}],
        "allow_public_rooms_without_auth": True,
        "dynamic_thumbnails": True,
        "user_directory": {"enabled": True},
        "max_event_delay_duration": "24h",
        "login_via_existing_session": {"enabled": True, "require_ui_auth": True},
        "experimental_features": {
            "msc4306_enabled": True, "msc4222_enabled": True, "msc4140_enabled": True, "msc3266_enabled": True,
            "msc2666_enabled": True, "msc4155_enabled": True, "msc4380_enabled": True, "msc4143_enabled": True,
        },
        "caches": {"sync_response_cache_duration": "0s"},
        "rc_message": OFF, "rc_registration": OFF, "rc_registration_token_validity": OFF,
        "rc_login": {"address": OFF, "account": OFF, "failed_attempts": OFF},
        "rc_admin_redaction": OFF, "rc_joins": {"local": OFF, "remote": OFF}, "rc_joins_per_room": OFF,
        "rc_invites": {"per_room": OFF, "per_user": OFF, "per_issuer": OFF},
        "rc_3pid_validation": OFF, "rc_third_party_invite": OFF, "rc_room_creation": OFF, "rc_media_create": OFF,
        "rc_presence": {"per_user": OFF}, "rc_key_requests": OFF, "rc_user_directory": OFF, "rc_profile": OFF,
        "rc_reports": OFF, "rc_delayed_event_mgmt": OFF,
    }  # fmt: skip


class Synapse:
    """A process of our own."""

    def __init__(self, home: Path):
        self.folder = tempfile.TemporaryDirectory(prefix="stoa-compare-")
        folder = Path(self.folder.name)
        self.log, port = folder / "log", free_port()
        self.url = f"http://127.0.0.1:{port}"
        config = folder / "homeserver.yaml"
        # JSON is YAML.
        config.write_text(json.dumps(settings(folder, port)))
        seed = base64.b64encode(os.urandom(32)).decode().rstrip("=")
        (folder / "signing.key").write_text(f"ed25519 a_test {seed}\n")
        with self.log.open("wb") as log:
            command = [str(home / "bin/python"), "-m", "synapse.app.homeserver", "-c", str(config)]
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)

    def wait(self, seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/_matrix/client/versions", timeout=5):
                    return
            except OSError:
                time.sleep(0.2)
        print(self.log.read_text(errors="replace")[-4000:], file=sys.stderr)
        raise SystemExit("Synapse did not answer")

    def stop(self) -> None:
        end(self.process)
        self.folder.cleanup()
