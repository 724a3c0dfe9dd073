"""Gateways that checks start, and certificates for them."""

import os
import shutil
import subprocess
import urllib.request
from pathlib import Path

from report import free_port, must, run, wait_for


def binary(target):
    """Returns the gateway to run: it must have the sandbox and `health`."""
    path = os.environ.get("DRAWBRIDGE") or target / "debug/drawbridge"
    if not Path(path).exists():
        return None
    usable = all(run(path, command, "--help")[0] == 0 for command in ("sandbox", "health"))
    return Path(path).resolve() if usable else None


def get(url):
    """Returns the body of a page, or None."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.read().decode()
    except OSError:
        return None


class Gateway:
    """A gateway as a process, on free ports of loopback."""

    def __init__(self, binary, log, *arguments, **environment):
        self.binary = binary
        self.port, self.admin = free_port(), free_port()
        self.log = log
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("DRAWBRIDGE", "OS_"))}
        self.environment = clean | {
            "DRAWBRIDGE_LISTEN": f"127.0.0.1:{self.port}",
            "DRAWBRIDGE_ADMIN": f"127.0.0.1:{self.admin}",
        } | environment  # fmt: skip
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [binary, *arguments], env=self.environment, stdout=output, stderr=output
            )

    def ready(self):
        """Waits until it is ready."""
        url = f"http://127.0.0.1:{self.admin}/readyz"
        done = lambda: get(url) is not None or self.process.poll() is not None
        return bool(wait_for("ready", done)) and get(url) is not None

    def metrics(self):
        return get(f"http://127.0.0.1:{self.admin}/metrics") or ""

    def stop(self):
        """Ends it by SIGTERM; returns its exit code."""
        self.process.terminate()
        return self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def certificate_authority(directory, name):
    directory.mkdir(parents=True, exist_ok=True)
    must(*REQUEST, "-subj", f"/CN={name}", "-keyout", directory / f"{name}.key",
         "-out", directory / f"{name}.pem")  # fmt: skip


def certificate(directory, ca, name, alternative_name):
    """Issues NAME.pem and NAME.key."""
    must(*REQUEST, "-subj", f"/CN={name}", "-addext", f"subjectAltName={alternative_name}",
         "-addext", "basicConstraints=critical,CA:FALSE",
         "-CA", directory / f"{ca}.pem", "-CAkey", directory / f"{ca}.key",
         "-keyout", directory / f"{name}.key", "-out", directory / f"{name}.pem")  # fmt: skip


REQUEST = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
           "-nodes", "-days", "2"]  # fmt: skip


def fresh(directory):
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory
