"""All checks of deploy/. Run by deploy/check, which installs the tools."""

import os
import sys
from pathlib import Path

import yaml

import envoy
import gateway
import kubernetes
import monitoring
import report
import running
import systemd


def main():
    work, target = Path(sys.argv[1]), Path(sys.argv[2])
    update = "--update" in sys.argv[3:]
    report.check_command("hadolint", "hadolint", "deploy/Dockerfile")
    kubernetes.main(update)
    monitoring.main()
    systemd.main(work)
    # Nothing here reads the examples of the meshes, which say so.
    for file in ("deploy/istio/drawbridge.yaml", "deploy/linkerd/drawbridge.yaml"):
        text = Path(file).read_text()
        kinds = [part["kind"] for part in yaml.safe_load_all(text)]
        report.check(f"{file} is YAML and says that it is untested: {', '.join(kinds)}",
                     text.startswith("# Untested"))  # fmt: skip
    binary = gateway.binary(target)
    if binary:
        running.main(binary, work)
        envoy.main(binary, work)
    elif os.environ.get("CI"):
        report.check("there is a gateway to run", False, "set DRAWBRIDGE")
    else:
        print("     not checked: what needs a gateway; set DRAWBRIDGE")
    print(f"{report.passed} passed, {report.failed} failed")
    return report.failed != 0


if __name__ == "__main__":
    sys.exit(main())
