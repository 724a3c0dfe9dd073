"""Checks that need a gateway: its metrics, a Prometheus that scrapes it, the chart's settings."""

import json
import re
import subprocess
import urllib.parse
from pathlib import Path

import yaml

import kubernetes
import monitoring
from gateway import Gateway, certificate, certificate_authority, fresh, get
from report import check, free_port, run, wait_for

TOKEN = "an-example-of-a-token"

# The gateway of these checks has no TLS.
ONLY_WITH_TLS = {"drawbridge_certificate_expiry_timestamp_seconds"}


def samples(text):
    """Returns the metrics of a scrape with the labels that they have."""
    found = {}
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? \S", text, re.M):
        name = monitoring.SUFFIX.sub("", name)
        found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return found


def check_metrics(gateway):
    run(gateway.binary, "call", "--gateway", f"127.0.0.1:{gateway.port}", "GetBuildInfo", "{}",
        env=gateway.environment | {"DRAWBRIDGE_TOKEN": TOKEN})  # fmt: skip
    found = samples(gateway.metrics())
    wrong = []
    for name, labels in monitoring.documented().items():
        if name not in found:
            if name in ONLY_WITH_TLS:
                continue
            wrong.append(f"{name} is not in /metrics")
        elif labels != found[name] - {"le"}:
            wrong.append(f"{name} has {found[name]} in /metrics, {labels} in the docs")
    check(f"/metrics has the {len(monitoring.documented())} metrics of {monitoring.OPERATIONS}",
          not wrong, "\n".join(wrong))  # fmt: skip


def check_queries(gateway, work):
    """Has a Prometheus scrape the gateway, and sends it each query."""
    port = free_port()
    config = yaml.safe_load(Path("deploy/prometheus/prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": "1s"}
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{gateway.admin}"]}]
    config["rule_files"] = [str(monitoring.ALERTS.resolve())]
    (work / "prometheus.yaml").write_text(yaml.safe_dump(config))
    with (work / "prometheus.log").open("w") as log:
        prometheus = subprocess.Popen(
            ["prometheus", f"--config.file={work}/prometheus.yaml", f"--storage.tsdb.path={work}/tsdb",
             f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log,
        )  # fmt: skip

    def query(text):
        url = f"http://127.0.0.1:{port}/api/v1/query?query=" + urllib.parse.quote(text)
        answer = get(url)
        return json.loads(answer)["data"]["result"] if answer else None

    try:
        scraped = wait_for("scrapes", lambda: query('count_over_time(up{job="drawbridge"}[1m]) > 3'))
        check("Prometheus scrapes the gateway", scraped)
        variables = {"$job": "drawbridge", "$instance": ".*", "$upstream": ".*",
                     "$__rate_interval": "1m"}  # fmt: skip
        failed, empty = [], []
        for place, text in monitoring.queries():
            for name, value in variables.items():
                text = text.replace(name, value)
            result = query(text)
            if result is None:
                failed.append(f"{place}: {text}")
            elif not result and place not in {r["alert"] for r in monitoring.alerts()}:
                empty.append(f"{place}: {text}")
        check(f"Prometheus understands {len(monitoring.queries())} queries", not failed,
              "\n".join(failed))  # fmt: skip
        # Nothing fails in the sandbox.
        empty = [line for line in empty if not line.startswith("Failing operations")]
        check("each panel of the dashboard shows something", not empty, "\n".join(empty))
    finally:
        prometheus.kill()
        prometheus.wait()


def check_chart(binary, work):
    """Starts the gateway as the chart does, but for its ports."""
    _, text = kubernetes.template(kubernetes.CHART / "ci/passthrough-values.yaml")
    documents = kubernetes.objects(text)
    file = next(d for d in documents if d["kind"] == "ConfigMap")["data"]["drawbridge.toml"]
    container = kubernetes.pods(documents)[0]["containers"][0]
    # As the kubelet does: the file is a link into a directory that is replaced.
    (work / "config/..data").mkdir(parents=True)
    (work / "config/..data/drawbridge.toml").write_text(file)
    (work / "config/drawbridge.toml").symlink_to("..data/drawbridge.toml")
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
    variables["DRAWBRIDGE_CONFIG"] = str(work / "config/drawbridge.toml")
    for name, port in (("LISTEN", "grpc"), ("ADMIN", "admin")):
        address, number = variables[f"DRAWBRIDGE_{name}"].rsplit(":", 1)
        check(f"chart: {name} and the port {port} are the same", number == ports[port])
        variables[f"DRAWBRIDGE_{name}"] = f"{address}:{free_port()}"
    with Gateway(binary, work / "chart.log", *container["args"], **variables) as gateway:
        gateway.admin = variables["DRAWBRIDGE_ADMIN"].rsplit(":", 1)[1]
        good = gateway.ready()
        probes = {container[f"{kind}Probe"]["httpGet"]["path"]
                  for kind in ("startup", "readiness", "liveness")}  # fmt: skip
        for path in sorted(probes):
            good = good and get(f"http://127.0.0.1:{gateway.admin}{path}") is not None
        check(f"chart: the gateway starts with its variables and file; {sorted(probes)} are served",
              good, gateway.log.read_text())  # fmt: skip


def check_examples(binary, work):
    """Starts a gateway with each example that has secrets, in another directory."""
    page = Path("docs/deployment.md").read_text()
    values = yaml.safe_load((kubernetes.CHART / "ci/mtls-values.yaml").read_text())
    examples = {
        "docs/deployment.md": re.search("^```toml\n(.*?)^```", page, re.S | re.M)[1],
        "the variant mtls of the chart": values["config"],
        "deploy/kustomize/example": Path("deploy/kustomize/example/drawbridge.toml").read_text(),
    }
    secrets = work / "secrets"
    certificate_authority(secrets / "tls", "ca")
    certificate(secrets / "tls", "ca", "tls", "DNS:drawbridge")
    for ending, name in (("pem", "tls.crt"), ("key", "tls.key")):
        (secrets / f"tls/tls.{ending}").rename(secrets / "tls" / name)
    (secrets / "tls/ca.pem").rename(secrets / "tls/ca.crt")
    (secrets / "drawbridge").mkdir()
    (secrets / "drawbridge/north-password").write_text("secret")
    (secrets / "drawbridge/client-tokens.txt").write_text(f"{TOKEN}\n")
    for name, text in examples.items():
        file = work / "example.toml"
        file.write_text(text.replace("/run/secrets", str(secrets)))
        with Gateway(binary, work / "example.log", "serve", "--config", str(file),
                     DRAWBRIDGE_LISTEN=f"0.0.0.0:{free_port()}") as gateway:  # fmt: skip
            check(f"the gateway starts beyond loopback with the file of {name}", gateway.ready(),
                  gateway.log.read_text())  # fmt: skip


def main(binary, work):
    work = fresh(work / "running")
    check_chart(binary, work)
    check_examples(binary, work)
    # Clients with names, for the metrics by identity.
    (work / "tokens.txt").write_text(f"{TOKEN}\n")
    (work / "sandbox.toml").write_text('[listen.clients]\ntokens_file = "tokens.txt"\n')
    arguments = ["sandbox", "--config", str(work / "sandbox.toml")]
    with Gateway(binary, work / "sandbox.log", *arguments) as gateway:
        if check("the sandbox starts", gateway.ready(), gateway.log.read_text()):
            check_metrics(gateway)
            check_queries(gateway, work)
