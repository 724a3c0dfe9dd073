"""All checks of deploy/. Run by deploy/check, which installs the tools."""

import subprocess
import sys
from pathlib import Path

import kubernetes
import monitoring
import report


def main():
    work, target = Path(sys.argv[1]), Path(sys.argv[2])
    update = "--update" in sys.argv[3:]
    report.check_command("hadolint", "hadolint", "deploy/Dockerfile")
    kubernetes.main(update)
    monitoring.main()
    print(f"{report.passed} passed, {report.failed} failed")
    return report.failed != 0


if __name__ == "__main__":
    sys.exit(main())
