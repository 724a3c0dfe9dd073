"""The unit of systemd: its keys, and how much of the system the service sees."""

import re
from pathlib import Path

from report import check, check_command, run

UNIT = Path("deploy/systemd/drawbridge.service")
# Of ten; without hardening a service has 9.6.
MOST_EXPOSURE = "1.5"


def main(work):
    # The gateway and its manual are not installed here.
    copy = work / UNIT.name
    text = UNIT.read_text().replace("/usr/local/bin/drawbridge", "/bin/true")
    copy.write_text(re.sub("^Documentation=.*\n", "", text, flags=re.M))
    code, output = run("systemd-analyze", "verify", copy)
    check("systemd-analyze verify", code == 0 and not output.strip(), output)
    threshold = f"--threshold={int(float(MOST_EXPOSURE) * 10)}"
    check_command(f"systemd-analyze security: at most {MOST_EXPOSURE}",
                  "systemd-analyze", "security", "--offline=true", "--no-pager", threshold,
                  copy)  # fmt: skip
