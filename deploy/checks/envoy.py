"""Runs deploy/envoy: two gateways behind a real Envoy, one of which is drained."""

import os
import re
import subprocess
from pathlib import Path

import yaml

from gateway import Gateway, certificate, certificate_authority, fresh, get
from report import check, free_port, run, wait_for

SOURCE = Path("deploy/envoy")
CLIENT = "spiffe://example.test/shop"
RESOURCES = [f"stack/{number}" for number in range(20)]


def certificates(directory):
    """Makes three CAs and their certificates: of clients, of Envoy, of the gateways."""
    for ca in ("clients-ca", "gateway-ca", "envoy-ca"):
        certificate_authority(directory, ca)
    certificate(directory, "gateway-ca", "server", "DNS:drawbridge,DNS:localhost")
    certificate(directory, "envoy-ca", "gateway-client", "DNS:envoy")
    certificate(directory, "clients-ca", "shop", f"URI:{CLIENT}")


def configuration(work, gateways):
    """Adapts Envoy's configuration to these gateways and directories."""
    (work / "sds").mkdir()
    for file in SOURCE.glob("sds/*.yaml"):
        text = file.read_text().replace("/etc/envoy", str(work))
        (work / "sds" / file.name).write_text(text)
    envoy = yaml.safe_load((SOURCE / "envoy.yaml").read_text().replace("/etc/envoy", str(work)))
    ports = free_port(), free_port()
    envoy["admin"]["address"]["socket_address"]["port_value"] = ports[1]
    resources = envoy["static_resources"]
    resources["listeners"][0]["address"]["socket_address"]["port_value"] = ports[0]
    resources["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"] = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": g.port}}}}
        for g in gateways
    ]
    (work / "envoy.yaml").write_text(yaml.safe_dump(envoy))
    return ports


def requests(admin):
    """Returns the requests to each healthy endpoint."""
    text = get(f"http://127.0.0.1:{admin}/clusters") or ""
    healthy = set(re.findall(r"^drawbridge::[\w.]+:(\d+)::health_flags::healthy$", text, re.M))
    counts = re.findall(r"^drawbridge::[\w.]+:(\d+)::rq_total::(\d+)$", text, re.M)
    return {port: int(count) for port, count in counts if port in healthy}


def main(binary, work):
    validate = ["envoy", "--mode", "validate", "--log-level", "warning", "-c"]
    work = fresh(work / "envoy")
    certificates(work / "tls")
    settings = (SOURCE / "drawbridge.toml").read_text()
    settings = settings.replace("/etc/drawbridge", str(work))
    (work / "drawbridge.toml").write_text(settings)
    start = lambda name: Gateway(
        binary, work / f"{name}.log", "serve", "--config", str(work / "drawbridge.toml")
    )
    with start("first") as first, start("second") as second:
        port, admin = configuration(work, (first, second))
        code, output = run(*validate, work / "envoy.yaml")
        check("envoy --mode validate", code == 0, output)
        ready = first.ready() and second.ready()
        check("gateways start with deploy/envoy/drawbridge.toml", ready,
              first.log.read_text() + second.log.read_text())  # fmt: skip
        with (work / "envoy.log").open("w") as log:
            process = subprocess.Popen(
                ["envoy", "-c", work / "envoy.yaml", "--use-dynamic-base-id", "--concurrency", "1",
                 "--log-level", "warning"], stdout=log, stderr=log,
            )  # fmt: skip
        try:
            calls(binary, work, (first, second), port, admin)
        finally:
            process.kill()
            process.wait()


def calls(binary, work, gateways, port, admin):
    tls = work / "tls"
    url = f"https://localhost:{port}"
    connection = ["--gateway", url, "--ca", tls / "gateway-ca.pem"]
    client = [*connection, "--cert", tls / "shop.pem", "--key", tls / "shop.key"]

    def call(resource, rpc="GatewayService/ListUpstreams"):
        return run(binary, "call", *client, "--metadata", f"drawbridge-affinity={resource}", rpc, "{}")

    both = wait_for("health checks", lambda: len(requests(admin)) == 2)
    if not check("Envoy finds both gateways healthy by gRPC health checks over mTLS", both,
                 (work / "envoy.log").read_text()):  # fmt: skip
        return

    replicas, failed = {}, []
    for resource in RESOURCES * 2:
        before = requests(admin)
        code, output = call(resource)
        if code != 0:
            failed.append(output)
            continue
        after = requests(admin)
        used = {p for p in after if after[p] > before.get(p, 0)}
        replicas.setdefault(resource, set()).update(used)
    check(f"{2 * len(RESOURCES)} calls through Envoy", not failed, "\n".join(failed))
    check("calls with the same drawbridge-affinity meet on one replica",
          all(len(used) == 1 for used in replicas.values()), replicas)  # fmt: skip
    both = check("those with different ones use both",
                 len(set().union(*replicas.values())) == 2, replicas)  # fmt: skip
    if not both:
        return

    code, output = run(binary, "health", *connection)
    check("Envoy rejects a client without certificate", code != 0, output)
    direct = ["--gateway", f"https://localhost:{gateways[0].port}", "--ca", tls / "gateway-ca.pem",
              "--cert", tls / "shop.pem", "--key", tls / "shop.key"]  # fmt: skip
    code, output = run(binary, "health", *direct)
    check("a gateway rejects whatever is not Envoy", code != 0, output)
    call(RESOURCES[0], "GetBuildInfo")    # fails: it has no credentials
    named = lambda: any(f"certificate:{CLIENT}" in g.log.read_text() for g in gateways)
    check(f"the gateway's log names the client, {CLIENT}", wait_for("the log line", named))

    served = lambda: run("openssl", "s_client", "-connect", f"localhost:{port}", "-servername",
                         "localhost", stdin=subprocess.DEVNULL)[1]  # fmt: skip
    certificate_before = re.search("-----BEGIN.*?-----END", served(), re.S)[0]
    (work / "next").mkdir()
    for name in ("gateway-ca.pem", "gateway-ca.key"):
        (work / "next" / name).write_bytes((tls / name).read_bytes())
    certificate(work / "next", "gateway-ca", "server", "DNS:drawbridge,DNS:localhost")
    for name in ("server.key", "server.pem"):
        os.replace(work / "next" / name, tls / name)
    changed = wait_for("the new certificate", lambda: certificate_before not in served())
    check("Envoy serves a rotated certificate", changed)
    code, output = call(RESOURCES[0])
    check("a call after that", code == 0, output)

    victim = str(gateways[0].port)
    resource = next(r for r, used in replicas.items() if used == {victim})
    gateways[0].process.terminate()
    count, failed = 0, []
    while gateways[0].process.poll() is None:
        code, output = call(resource)
        count += 1
        if code != 0:
            failed.append(output)
    code, output = call(resource)
    failed += [output] if code != 0 else []
    check(f"a replica drains: {count + 1} calls of its resource meanwhile, none fails", not failed,
          "\n".join(failed))  # fmt: skip
    check("it exits with 0", gateways[0].process.returncode == 0, gateways[0].log.read_text())
    check("Envoy sends nothing more to it", set(requests(admin)) == {str(gateways[1].port)})
