"""Rules and dashboard: their syntax, their tests, and that the metrics which they name exist."""

import json
import re
from pathlib import Path

import yaml

from report import check, check_command

ALERTS = Path("deploy/prometheus/alerts.yaml")
DASHBOARD = Path("deploy/grafana/dashboard.json")
PAGE = Path("docs/alerts.md")
OPERATIONS = Path("docs/operations.md")
# Labels that Prometheus adds.
TARGET_LABELS = {"job", "instance"}
SUFFIX = re.compile("_(bucket|sum|count)$")


def alerts():
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def panels():
    return [p for p in json.loads(DASHBOARD.read_text())["panels"] if p["type"] != "row"]


def queries():
    """Returns each query with the place that has it."""
    found = [(rule["alert"], rule["expr"]) for rule in alerts()]
    return found + [(p["title"], target["expr"]) for p in panels() for target in p["targets"]]


def used(query):
    """Returns the metrics of a query, each with the labels by which it is selected."""
    return [
        (name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector)))
        for name, selector in re.findall(r"\b(drawbridge_\w+)(?:\{([^}]*)\})?", query)
    ]


def documented():
    """Returns the metrics of docs/operations.md with their labels."""
    rows = re.findall(r"^\| `(drawbridge_\w+)` \| \w+ \| ([\w, ]*) ?\|", OPERATIONS.read_text(), re.M)
    return {name: set(labels.replace(",", " ").split()) for name, labels in rows}


def main():
    rules = alerts()
    check_command("promtool check rules", "promtool", "check", "rules", ALERTS)
    check_command("promtool test rules", "promtool", "test", "rules", "alerts_test.yaml",
                  cwd="deploy/prometheus")  # fmt: skip
    check_command("promtool check config", "promtool", "check", "config",
                  "deploy/prometheus/prometheus.yaml")  # fmt: skip
    tests = yaml.safe_load(Path("deploy/prometheus/alerts_test.yaml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    untested = [
        rule["alert"] for rule in rules
        if {bool(c["exp_alerts"]) for c in cases if c["alertname"] == rule["alert"]} != {True, False}
    ]  # fmt: skip
    check("each alert has a test in which it fires, and one in which it does not", not untested,
          untested)  # fmt: skip

    sections = re.findall("^## (Drawbridge.*)$", PAGE.read_text(), re.M)
    names = [rule["alert"] for rule in rules]
    check(f"{PAGE} has a section per alert", sections == names, set(sections) ^ set(names))
    wrong = [r["alert"] for r in rules
             if r["annotations"]["runbook"] != f"{PAGE}#{r['alert'].lower()}"]  # fmt: skip
    check("each alert links its section", not wrong, wrong)

    known = documented()
    wrong = []
    for place, query in queries():
        for name, labels in used(query):
            metric = name if name in known else SUFFIX.sub("", name)
            if metric not in known:
                wrong.append(f"{place}: {name}")
            elif unknown := labels - known[metric] - TARGET_LABELS - {"le"}:
                wrong.append(f"{place}: {name} has no {unknown}")
    check(f"{len(queries())} queries use metrics and labels of {OPERATIONS}", not wrong,
          "\n".join(wrong))  # fmt: skip
    shown = {SUFFIX.sub("", name) for place, query in queries() for name, _ in used(query)}
    missing = sorted(name for name in known if name not in shown)
    if missing:
        print(f"     neither on the dashboard nor in an alert: {', '.join(missing)}")
