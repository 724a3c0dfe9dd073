"""Lines of checks, and commands."""

import socket
import subprocess
import sys
import time

passed = 0
failed = 0


def check(what, good, detail=""):
    """Prints a line, and what is wrong."""
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    print(f"{'ok  ' if good else 'FAIL'} {what}", flush=True)
    if not good and detail:
        print("     " + str(detail).strip().replace("\n", "\n     "), flush=True)
    return good


def run(*command, **options):
    """Runs a command; returns its exit code and its output, standard error included."""
    result = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options,
    )  # fmt: skip
    return result.returncode, result.stdout


def check_command(what, *command, **options):
    """Checks that a command succeeds; returns its output."""
    code, output = run(*command, **options)
    check(what, code == 0, f"exit code {code}\n{output}")
    return output


def must(*command, **options):
    code, output = run(*command, **options)
    if code != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit code {code}\n{output}")
    return output


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(what, condition, seconds=60):
    """Polls a condition. The time is for machines under load; nothing is measured by it."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            return None
        time.sleep(0.1)
    return value
