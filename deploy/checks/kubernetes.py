"""The chart and the Kustomize base: lint, schemas of Kubernetes, and that both are the same."""

import json
from pathlib import Path

import kubernetes_validate
import yaml

from report import check, check_command, run

CHART = Path("deploy/helm/drawbridge")
BASE = Path("deploy/kustomize/base/drawbridge.yaml")
ALERTS = Path("deploy/prometheus/alerts.yaml")
# Of the Prometheus operator; there is no schema here.
CUSTOM = {"ServiceMonitor", "PrometheusRule"}
VERSIONS = ("1.30", "1.37")


def objects(text):
    return [document for document in yaml.safe_load_all(text) if document]


def problems(documents):
    """Returns what the schemas of Kubernetes reject."""
    found = []
    for document in documents:
        if document["kind"] in CUSTOM:
            continue
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except Exception as error:
                found.append(f"{document['kind']} {version}: {error}")
    return found


def pods(documents):
    return [d["spec"]["template"]["spec"] for d in documents if d["kind"] == "Deployment"]


def hardened(documents):
    """Returns what the restricted profile of Kubernetes' Pod Security Standards lacks, and more."""
    found = []
    for pod in pods(documents):
        container = pod["containers"][0]
        security = container["securityContext"]
        wanted = {
            "runAsNonRoot": pod["securityContext"]["runAsNonRoot"],
            "seccompProfile": pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault",
            "no privileges": security["allowPrivilegeEscalation"] is False,
            "no capabilities": security["capabilities"]["drop"] == ["ALL"],
            "read-only root": security["readOnlyRootFilesystem"],
            "no token": pod["automountServiceAccountToken"] is False,
            "no service links": pod["enableServiceLinks"] is False,
            "memory limit": "memory" in container["resources"]["limits"],
            "no subPath": all("subPath" not in mount for mount in container["volumeMounts"]),
        }
        found += [name for name, good in wanted.items() if not good]
        for variable in container["env"]:
            if "valueFrom" in variable:
                found.append(f"secret in a variable: {variable['name']}")
    return found


def described(schema, place="values"):
    """Returns the values that the schema does not describe."""
    found = [] if "description" in schema or place == "values" else [place]
    for name, part in schema.get("properties", {}).items():
        if part.get("properties") or "description" not in part:
            found += described(part, f"{place}.{name}")
    return found



def template(values):
    return run("helm", "template", "drawbridge", CHART, "--namespace", "drawbridge", "-f", values)


def base():
    """Makes the Kustomize base of the chart."""
    _, text = template(CHART / "ci/kustomize-values.yaml")
    skipped = ("managed-by: Helm", "helm.sh/chart", "# Source:")
    lines = [line for line in text.splitlines() if not any(word in line for word in skipped)]
    return "\n".join(["# Made of the chart by `deploy/check --update`.", *lines]) + "\n"


def main(update):
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    missing = described(schema)
    check("helm: each value has a description", not missing, missing)
    missing = set(values) ^ (set(schema["properties"]) - {"global"})
    check("helm: values.yaml has each value of the schema", not missing, missing)
    for variant in sorted((CHART / "ci").glob("*-values.yaml")):
        name = variant.name.removesuffix("-values.yaml")
        check_command(f"helm lint, {name}", "helm", "lint", "--strict", CHART, "-f", variant)
        code, text = template(variant)
        if not check(f"helm template, {name}", code == 0, text):
            continue
        documents = objects(text)
        found = problems(documents) + hardened(documents)
        check(f"helm: {len(documents)} objects of {name} are valid and hardened", not found,
              "\n".join(found))  # fmt: skip
    code, text = run("helm", "template", "drawbridge", CHART)
    check("helm: without a configuration the chart says what to set",
          code != 0 and "--set-file config=drawbridge.toml" in text, text)  # fmt: skip
    code, text = run("helm", "template", "x", CHART, "--set", "config=x,replicaCont=3")
    check("helm: a misspelt value is an error", code != 0 and "replicaCont" in text, text)

    if update:
        BASE.write_text(base())
        (CHART / ALERTS.name).write_text(ALERTS.read_text())
    check(f"helm: the rules of the chart are {ALERTS}",
          (CHART / ALERTS.name).read_text() == ALERTS.read_text(), "run deploy/check --update")  # fmt: skip
    check("kustomize: the base is that of the chart", BASE.read_text() == base(),
          "run deploy/check --update")  # fmt: skip
    for place in ("base", "example"):
        text = check_command(f"kustomize, {place}", "kubectl", "kustomize",
                             f"deploy/kustomize/{place}")  # fmt: skip
        documents = objects(text)
        found = problems(documents) + hardened(documents)
        check(f"kustomize: {len(documents)} objects of {place} are valid and hardened", not found,
              "\n".join(found))  # fmt: skip
    for file in sorted(Path("deploy").glob("prometheus/servicemonitor.yaml")):
        check(f"{file} is YAML", bool(objects(file.read_text())))
