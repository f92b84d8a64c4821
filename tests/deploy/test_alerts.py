"""The alert rules agree with the table of metrics and with the words of labels."""

import re

import pytest

from deployed import DEPLOY, SERIES, labels_of, rules, selectors
from embedway import errors
from embedway.server import health, problems
from embedway.telemetry.labels import outcome_label
from embedway.telemetry.operations import DriftDetails, RequestDetails, StoreErrorDetails

RULES = pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
#: The endpoints that the rules are about, and the codes and statuses.
PATHS = {endpoint.path for endpoint in health.ENDPOINTS}
COUNTERS = {name for name in SERIES if name.endswith(("_total", "_bucket", "_sum", "_count"))}


def words(details, field):
    """Return the words of a field of a kind of operation."""
    return set(re.findall(r"['\"]([\w-]+)['\"]", str(details.__annotations__[field])))


OUTCOMES = {"ok", "partial", "cancelled", "other", *(name for name in vars(errors) if name.endswith("Error"))}
VALUES = {
    "status": {str(kind.status) for kind in problems._KINDS} | {"200"},  # noqa: SLF001  the table of errors
    "code": {kind.code for kind in problems._KINDS},  # noqa: SLF001  as above
    "path": PATHS | {"/health/.*"},
    "outcome": OUTCOMES,
    "task": words(RequestDetails, "task"),
    "store": words(StoreErrorDetails, "store"),
    "result": words(DriftDetails, "level") - {"raised", "cleared"},
}


@RULES
def test_expressions_use_metrics_and_labels_of_the_table(rule):
    labels = labels_of(rule["expr"])
    assert "job" in labels
    texts = " ".join(rule["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", texts)) <= labels


@RULES
def test_values_of_labels_are_words_of_the_program(rule):
    for _, matchers in selectors(rule["expr"]):
        for label, value in matchers:
            assert set(value.split("|")) <= VALUES[label]


@RULES
def test_a_rule_has_severity_summary_and_remedy(rule):
    assert rule["labels"] == {"severity": rule["labels"]["severity"]}
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert set(rule["annotations"]) == {"summary", "description"}
    assert rule["annotations"]["description"].endswith(".")
    assert len(rule["annotations"]["summary"]) < 150


@RULES
def test_counters_are_only_used_as_rates_or_as_new_series(rule):
    expression = " ".join(rule["expr"].split())
    for name in {name for name, _ in selectors(expression)} & COUNTERS:
        use = rf"{name}(?:{{[^}}]*}})?"
        rest = re.sub(rf"(?:rate|increase)\({use}\[\w+\]\)", "", expression)
        rest = re.sub(rf"({use}) unless \1 offset \w+", "", rest)
        assert name not in rest


def test_names_of_alerts_are_unique():
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)


def test_every_outcome_of_the_rules_is_a_label():
    used = {
        word
        for rule in rules()
        for _, matchers in selectors(rule["expr"])
        for label, value in matchers
        if label == "outcome"
        for word in value.split("|")
    }
    classes = used - {"ok", "partial", "cancelled"}
    assert classes
    assert {outcome_label(name) for name in classes} == classes


def test_the_readme_lists_the_alerts():
    lines = re.findall(r"\| (Embedway\w+) \| (\w+) \| .+ \| (\w*) *\|\n", (DEPLOY / "README.md").read_text("utf-8"))
    assert lines == [(rule["alert"], rule["labels"]["severity"], rule.get("for", "")) for rule in rules()]
