"""The files of `deploy/`, their PromQL expressions, and the metrics that these use."""

import json
import re
from pathlib import Path

import promql_parser
import yaml

from embedway.telemetry.names import METRICS

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = DEPLOY / "grafana" / "embedway.json"
#: Rules for every program with embedway, and for gateways.
ALERTS, GATEWAY_ALERTS = (DEPLOY / "prometheus" / f"{name}.yml" for name in ("alerts", "gateway-alerts"))
#: Labels that Prometheus adds to each series.
TARGET_LABELS = {"job", "instance"}
#: Names of the series of each metric in the exposition, with their labels.
SERIES = {}
for _metric in METRICS:
    if _metric.kind == "histogram":
        SERIES[f"{_metric.name}_bucket"] = {*_metric.labels, "le"}
    for _name in [f"{_metric.name}_sum", f"{_metric.name}_count"] if _metric.kind == "histogram" else [_metric.exposed]:
        SERIES[_name] = set(_metric.labels)


def dashboard():
    return json.loads(DASHBOARD.read_text("utf-8"))


def panels():
    """Return the panels with queries."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries():
    """Return title of the panel and expression of each query."""
    return [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]


def rules():
    """Return the alert rules of both files."""
    groups = [group for file in (ALERTS, GATEWAY_ALERTS) for group in yaml.safe_load(file.read_text("utf-8"))["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def filled(expression, interval="1m"):
    """Return a query with values for Grafana's variables: all jobs, models and routes, and an interval."""
    expression = re.sub(r"\$(job|model|route)\b", ".*", expression)
    return re.sub(r"\$__(rate_interval|range)\b", interval, expression)


def nodes(expression):
    """Return the nodes of a parsed expression."""
    found = []
    promql_parser.walk(promql_parser.parse(filled(expression)), found.append)
    return found


def selectors(expression):
    """Return name and matchers (label, value) of each selector in an expression."""
    found = [node for node in nodes(expression) if isinstance(node, promql_parser.VectorSelector)]
    return [(one.name, [(matcher.name, matcher.value) for matcher in one.matchers.matchers]) for one in found]


def labels(node):
    """Return the labels of a node's series, or None for a number. Raises AssertionError for a label that is not there.

    Operands of arithmetic and comparisons must have the same labels, unless `on` names them: others never match.
    """
    match node:
        case promql_parser.NumberLiteral():
            found = None
        case promql_parser.VectorSelector():
            assert node.name in SERIES, f"no metric {node.name}"
            found = SERIES[node.name] | TARGET_LABELS
            assert {matcher.name for matcher in node.matchers.matchers} <= found, node.prettify()
        case promql_parser.MatrixSelector():
            found = labels(node.vector_selector)
        case promql_parser.ParenExpr() | promql_parser.UnaryExpr():
            found = labels(node.expr)
        case promql_parser.AggregateExpr():
            found = set() if node.modifier is None else set(node.modifier.labels)
            assert found <= labels(node.expr), node.prettify()
        case promql_parser.Call():
            found = _labels_of_call(node)
        case promql_parser.BinaryExpr():
            found = _labels_of_both(node)
        case _:
            raise AssertionError(f"unknown kind of expression: {node.prettify()}")
    return found


def _labels_of_call(node):
    if node.func.name == "time":
        return None
    inner = [one for argument in node.args if (one := labels(argument)) is not None]
    found = inner[0] if inner else set()
    if node.func.name == "histogram_quantile":
        assert "le" in found, node.prettify()
        return found - {"le"}
    return found


def _labels_of_both(node):
    left, right = labels(node.lhs), labels(node.rhs)
    if left is None or right is None:
        return right if left is None else left
    matching = None if node.modifier is None else node.modifier.matching
    if matching is not None:
        assert set(matching.labels) <= left & right, node.prettify()
        return left
    assert left == right or str(node.op) == "or", node.prettify()
    return left & right


def labels_of(expression):
    """Return the labels of an expression's series, checked against the table of metrics; see `labels`."""
    return labels(promql_parser.parse(filled(expression)))
