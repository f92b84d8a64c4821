"""Prometheus itself reads the rules and the queries, on metrics of a program with failing services and stores.

These tests need Debian's package `prometheus`, and fail without it (make test-deploy).
"""

import re
import subprocess
import sys
import urllib.request

import pytest
import yaml

import alert_cases
import metered_program
from deployed import ALERTS, DEPLOY, GATEWAY_ALERTS, filled, queries, rules
from embedway.telemetry.exposition import write_metrics_file
from embedway.telemetry.run_metrics import Run
from prometheus_server import check_metrics, promtool, running_prometheus, wait_until

pytestmark = pytest.mark.prometheus

#: The program does not use gigabytes of memory.
LOWERED = {"EmbedwayMemoryHigh": ("8e9", "1e6")}


@pytest.fixture(scope="module")
def metrics_port(tmp_path_factory, default_model_directory):
    """Run the program, and return the port of its metrics."""
    folder = tmp_path_factory.mktemp("program")
    command = [sys.executable, metered_program.__file__, str(folder), str(default_model_directory)]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log) as process,
    ):
        try:
            port = process.stdout.readline().strip()
            assert port, (folder / "log").read_text()
            yield int(port)
        finally:
            process.stdin.close()
            try:
                process.wait(timeout=30)
            finally:
                process.kill()


@pytest.fixture(scope="module")
def prometheus(metrics_port, tmp_path_factory):
    """Run a server that scrapes the program and evaluates the rules, without their `for`."""
    folder = tmp_path_factory.mktemp("prometheus")
    tested = rules()
    for rule in tested:
        rule.pop("for", None)
        if change := LOWERED.get(rule["alert"]):
            assert change[0] in rule["expr"]
            rule["expr"] = rule["expr"].replace(*change)
    (folder / "alerts.yml").write_text(yaml.safe_dump({"groups": [{"name": "tested", "rules": tested}]}))
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8"))
    config["global"] = {"scrape_interval": "200ms", "evaluation_interval": "500ms"}
    config["scrape_configs"] = config["scrape_configs"][:1]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{metrics_port}"]}]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    with running_prometheus(folder, file) as server:
        yield server


@pytest.mark.parametrize("name", ["prometheus.yml", "gateway.yml"])
def test_the_configurations_are_valid(name):
    promtool("check", "config", DEPLOY / "prometheus" / name)


@pytest.mark.parametrize("file", [ALERTS, GATEWAY_ALERTS], ids=lambda file: file.name)
def test_rules_are_valid(file):
    promtool("check", "rules", "--lint=all", "--lint-fatal", file)


def test_the_files_of_two_jobs_are_valid_together(tmp_path):
    texts = []
    for name in ("docs", "tickets"):
        with Run(name) as job:
            job.rejected = 0
        write_metrics_file(tmp_path / f"{name}.prom")
        texts.append((tmp_path / f"{name}.prom").read_text("utf-8"))
        check_metrics(texts[-1])
    assert 'embedway_run_success{run="docs"} 1.0' in texts[0]


def test_metrics_have_names_and_help_that_promtool_accepts(metrics_port, prometheus):
    wait_until(lambda: prometheus.query("embedway_run_success"))
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    families = re.split(r"(?=^# HELP )", text, flags=re.MULTILINE)
    own = [one for one in families if re.match(r"# HELP (embedway|embedding)_(?!\w+_created )", one)]
    assert len(own) > 30
    check_metrics("".join(own))


def test_alerts_fire_after_their_time_and_not_before(tmp_path):
    file = tmp_path / "cases.yml"
    file.write_text(yaml.safe_dump(alert_cases.document(ALERTS, GATEWAY_ALERTS)))
    promtool("test", "rules", file)


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not():
    for fires in (True, False):
        assert {case.alert for case in alert_cases.CASES if fires in case.fires.values()} == {
            rule["alert"] for rule in rules()
        }


def test_every_query_of_the_dashboard_has_data(prometheus):
    left = dict.fromkeys(queries())

    def is_done():
        for title, expression in list(left):
            # NaN is not equal to itself: a share of nothing.
            if any(value == value for _, value in prometheus.query(filled(expression))):  # noqa: PLR0124
                del left[title, expression]
        return not left

    wait_until(is_done)
    assert list(left) == []


def test_every_alert_fires_on_its_fault(prometheus):
    names = {rule["alert"] for rule in rules()}
    wait_until(lambda: names <= prometheus.firing().keys())
    firing = prometheus.firing()
    assert names - firing.keys() == set()
    for alert in firing.values():
        texts = " ".join(alert["annotations"].values())
        assert "<no value>" not in texts
        assert "%!" not in texts


def test_a_wrong_expression_is_reported(prometheus):
    with pytest.raises(AssertionError, match="parse error"):
        prometheus.query("sum by (")
