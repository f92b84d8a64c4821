"""The dashboard agrees with Grafana's schema, with itself, and with the table of metrics."""

import itertools
import json

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from deployed import SERIES, dashboard, labels_of, panels, queries, selectors

ROWS = ["Traffic", "Cost and budgets", "Cache", "Services", "Queue", "This machine", "Quality", "Jobs", "Gateway"]
#: Names of panels that all installations of Grafana have.
KINDS = {"timeseries", "stat", "bargauge", "state-timeline"}


def lost(given, read, path=""):
    """Return the paths of values that are not as given after reading."""
    if isinstance(given, dict) and isinstance(read, dict):
        return [one for key in given for one in lost(given[key], read.get(key), f"{path}.{key}")]
    if isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        return [one for n, pair in enumerate(zip(given, read, strict=True)) for one in lost(*pair, f"{path}[{n}]")]
    return [] if given == read else [path]


def reread(given):
    """Return a dashboard after reading it with the classes that Grafana generates from its schema."""
    register_default_plugins()
    return json.loads(json.dumps(Dashboard.from_json(given), cls=JSONEncoder))


def test_grafanas_schema_has_every_field():
    assert lost(dashboard(), reread(dashboard())) == []


def test_a_field_that_the_schema_does_not_have_is_found():
    given = dashboard()
    given["panels"][1]["targets"][0]["expression"] = "up"
    given["panels"][1]["gridPosition"] = {}
    assert lost(given, reread(given)) == [".panels[1].targets[0].expression", ".panels[1].gridPosition"]


def test_rows_and_kinds_of_panels():
    assert [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"] == ROWS
    assert {panel["type"] for panel in panels()} == KINDS


def test_ids_and_titles_are_unique():
    every = dashboard()["panels"]
    assert len({panel["id"] for panel in every}) == len({panel["title"] for panel in every}) == len(every)


def test_no_panels_overlap_and_all_are_inside():
    cells = {}
    for panel in dashboard()["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24
        columns, lines = (range(grid[at], grid[at] + grid[size]) for at, size in (("x", "w"), ("y", "h")))
        for cell in itertools.product(columns, lines):
            assert cells.setdefault(cell, panel["title"]) == panel["title"]


def test_each_panel_is_described_and_has_a_unit():
    for panel in panels():
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_everything_uses_the_variable_of_the_data_source():
    variables = dashboard()["templating"]["list"]
    assert [(one["name"], one["type"]) for one in variables] == [
        ("datasource", "datasource"),
        ("job", "query"),
        ("model", "query"),
        ("route", "query"),
    ]
    users = [*variables[1:], *panels(), *(target for panel in panels() for target in panel["targets"])]
    assert all(user["datasource"] == {"type": "prometheus", "uid": "${datasource}"} for user in users)


@pytest.mark.parametrize("variable", dashboard()["templating"]["list"][1:], ids=lambda one: one["name"])
def test_variables_have_values_of_a_label(variable):
    selector, label = variable["query"]["query"].removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
    assert label == variable["name"]
    assert label in labels_of(selector)
    # With `All`, series without the label are shown too.
    assert variable["allValue"] == ".*"


@pytest.mark.parametrize(("title", "expression"), queries())
def test_queries_use_metrics_and_labels_of_the_table(title, expression):
    labels = labels_of(expression)
    target = next(one for panel in panels() for one in panel["targets"] if one["expr"] == expression)
    shown = {part.partition("}}")[0] for part in target["legendFormat"].split("{{")[1:]}
    assert shown == labels, title


@pytest.mark.parametrize(("title", "expression"), queries())
def test_queries_are_limited_to_the_chosen_jobs_models_and_routes(title, expression):
    for name, matchers in selectors(expression):
        chosen = {"job", *SERIES[name] & {"model", "route"}}
        assert {(label, ".*") for label in chosen} <= set(matchers), title


def test_every_metric_is_shown():
    shown = {name for _, expression in queries() for name, _ in selectors(expression)}
    left = {name for name in SERIES if not name.endswith(("_sum", "_count"))} - shown
    assert left - {"embedway_model_load_seconds_bucket"} == set()  # shown as an average


def test_an_expression_with_a_wrong_name_or_label_is_found():
    for wrong in (
        "embedway_request_total",
        'embedway_requests_total{path="x"}',
        "sum by (path) (embedway_requests_total)",
        "sum by (job) (embedway_requests_total) / embedway_requests_total",
        "sum by (job) (embedway_requests_total) and on (model) sum by (model) (embedway_requests_total)",
        "histogram_quantile(0.9, sum by (model) (rate(embedway_request_seconds_bucket[5m])))",
    ):
        with pytest.raises(AssertionError):
            labels_of(wrong)
