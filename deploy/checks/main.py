"""All checks of deploy/. Run by deploy/check, which installs the tools."""

import subprocess
import sys
from pathlib import Path

import envoy
import gateway
import kubernetes
import monitoring
import report
import running


def main():
    work, target = Path(sys.argv[1]), Path(sys.argv[2])
    update = "--update" in sys.argv[3:]
    report.check_command("hadolint", "hadolint", "deploy/Dockerfile")
    kubernetes.main(update)
    monitoring.main()
    binary = gateway.binary(target)
    if binary:
        running.main(binary, work)
        envoy.main(binary, work)
    else:
        print("     not checked: what needs a gateway; set DRAWBRIDGE")
    print(f"{report.passed} passed, {report.failed} failed")
    return report.failed != 0


if __name__ == "__main__":
    sys.exit(main())
