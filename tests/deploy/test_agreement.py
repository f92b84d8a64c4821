"""Ports, paths, times, users and folders are the same in all files of `deploy/`, and the settings load."""

import re

import pytest
import yaml

from containers import (
    DEPLOY,
    KUBERNETES,
    SETTINGS,
    UNIT,
    compose,
    final_stage,
    health_command,
    manifest,
    parent_folders,
    pod,
    pod_variables,
    seconds,
    unit,
)
from deployed import SERIES
from embedway import Config
from embedway.cli import app
from embedway.shared_servers import CacheUse, ServerFacts

CADDYFILE = (DEPLOY / "caddy" / "Caddyfile").read_text("utf-8")
VALKEY = dict(
    line.split(None, 1)
    for line in (DEPLOY / "valkey" / "valkey.conf").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
)
GATEWAYS = ["gateway-1", "gateway-2"]
GIB = 2**30
WAITING = "embedway_gateway_waiting_requests"


def compose_variables():
    return compose()["services"]["gateway-1"]["environment"]


def kubernetes_variables():
    return pod_variables({"valkey-password": "p4ssw0rd", "cache-secret": "c" * 64, "openai-api-key": "k3y"})


def settings():
    return Config.load([SETTINGS], environ=compose_variables())


@pytest.mark.parametrize(
    ("variables", "server"),
    [(compose_variables, "valkey:6379/0"), (kubernetes_variables, "embedway-valkey:6379/0")],
    ids=["compose", "kubernetes"],
)
def test_the_settings_load_with_the_variables_of_the_container(variables, server):
    config = Config.load([SETTINGS], environ=variables())
    assert (config.ledger.backend, config.pins.backend, config.cache.backend) == ("redis",) * 3
    for section in (config.ledger, config.pins, config.cache):
        assert section.url.get_secret_value() == f"redis://:p4ssw0rd@{server}"
    assert config.cache.secret.get_secret_value() == "c" * 64
    assert config.server.auth == "keys"
    assert config.budgets["everything"].hard


def test_the_url_of_valkey_names_a_service():
    name, port = compose_variables()["EMBEDWAY_LEDGER__URL"].rpartition("@")[2].removesuffix("/0").split(":")
    assert name in compose()["services"]
    assert set(compose()["services"][name]["networks"]) <= set(compose()["services"]["gateway-1"]["networks"])
    service = manifest("Service", "embedway-valkey")["spec"]["ports"][0]
    (container,) = pod("StatefulSet", "embedway-valkey")["containers"]
    assert [service["port"]] == [one["containerPort"] for one in container["ports"]]
    assert service["port"] == int(port)


def test_all_files_name_the_ports_of_the_gateway():
    server = settings().server
    ports = {"http": server.port, "metrics": server.metrics_port}
    assert server.host == server.metrics_host == "0.0.0.0"  # noqa: S104  inside the container
    exposed = next(text for name, text in final_stage() if name == "EXPOSE")
    assert set(map(int, exposed.split())) == set(ports.values())
    assert f"'127.0.0.1', {server.port}," in health_command()[-1]
    assert {one["name"]: one["containerPort"] for one in pod()["containers"][0]["ports"]} == ports
    assert {one["targetPort"] for one in manifest("Service")["spec"]["ports"]} == set(ports)
    opened = [one["ports"] for one in manifest("NetworkPolicy")["spec"]["ingress"]]
    assert {port["port"] for rule in opened for port in rule} == set(ports.values())
    upstreams = re.search(r"\{\$REPLICAS:([^}]*)\}", CADDYFILE)[1].split()
    assert upstreams == [f"{name}:{server.port}" for name in GATEWAYS]
    jobs = yaml.safe_load((DEPLOY / "prometheus" / "gateway.yml").read_text("utf-8"))["scrape_configs"]
    targets = jobs[0]["static_configs"][0]["targets"]
    assert targets == [f"{name}:{server.metrics_port}" for name in GATEWAYS]
    assert set(GATEWAYS) <= set(compose()["services"])


def test_metrics_without_a_key_are_not_published():
    for name in GATEWAYS:
        assert "ports" not in compose()["services"][name]
    assert str(settings().server.metrics_port) not in CADDYFILE
    (rule,) = [
        one
        for one in manifest("NetworkPolicy")["spec"]["ingress"]
        if {"port": settings().server.metrics_port} in one["ports"]
    ]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]


def test_all_files_name_the_same_paths_of_health():
    container = pod()["containers"][0]
    paths = {container[f"{one}Probe"]["httpGet"]["path"] for one in ("startup", "liveness")}
    assert paths == {"/health/live"}
    assert "'/health/live'" in health_command()[-1]
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert re.search(r"health_uri (\S+)", CADDYFILE)[1] == "/health/ready"
    monitor = yaml.safe_load((KUBERNETES / "optional" / "servicemonitor.yaml").read_text("utf-8"))
    assert {one["path"] for one in monitor["spec"]["endpoints"]} == {"/metrics"}


def test_the_gateway_has_time_to_drain():
    drain_s = settings().server.drain_s
    for name in [*GATEWAYS, "balancer"]:
        assert seconds(compose()["services"][name]["stop_grace_period"]) >= drain_s + 10
    spec = pod()
    sleep = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep[0] == "sleep"
    assert spec["terminationGracePeriodSeconds"] >= int(sleep[1]) + drain_s + 10
    # A replica that is not ready gets no requests before its drain begins.
    assert int(sleep[1]) >= spec["containers"][0]["readinessProbe"]["periodSeconds"]
    assert int(unit()["Service"]["TimeoutStopSec"][0]) >= Config().server.drain_s + 10


def test_the_load_balancer_closes_connections_before_the_gateway_does():
    keepalive_s = int(re.search(r"keepalive (\d+)s", CADDYFILE)[1])
    assert keepalive_s < settings().server.idle_timeout_s


def test_the_cache_leaves_room_for_the_ledger():
    cache = settings().cache
    assert VALKEY["maxmemory-policy"] == "noeviction"
    maxmemory = int(re.fullmatch(r"(\d+)gb", VALKEY["maxmemory"])[1]) * GIB
    facts = ServerFacts(("run",), maxmemory, VALKEY["maxmemory-policy"])
    assert not facts.deletes
    assert facts.danger(CacheUse(cache.redis_mib * 2**20, cache.lifetime_s is not None)) is None
    limits = [
        compose()["services"]["valkey"]["mem_limit"].upper() + "I",
        pod("StatefulSet", "embedway-valkey")["containers"][0]["resources"]["limits"]["memory"],
    ]
    assert all(int(re.fullmatch(r"(\d+)GI", limit.upper())[1]) * GIB >= 2 * maxmemory for limit in limits)


def test_valkey_writes_to_its_volume():
    volumes = compose()["services"]["valkey"]["volumes"]
    mounts = pod("StatefulSet", "embedway-valkey")["containers"][0]["volumeMounts"]
    assert f"valkey:{VALKEY['dir']}" in volumes
    assert VALKEY["dir"] in {one["mountPath"] for one in mounts}
    assert VALKEY["appendonly"] == "yes"


def test_user_and_folders_are_those_of_the_image():
    (user,) = [text for name, text in final_stage() if name == "USER"]
    context = pod()["securityContext"]
    assert f"{context['runAsUser']}:{context['runAsGroup']}" == user
    assert context["fsGroup"] == context["runAsGroup"]
    mounts = {one["mountPath"] for one in pod()["containers"][0]["volumeMounts"]}
    service = compose()["services"]["gateway-1"]
    written = {one.split(":")[0] for one in service["tmpfs"]}
    assert mounts == written | {"/etc/embedway"}
    assert str(settings().server.run_directory) in written
    assert {"/var/lib/embedway", "/var/cache/embedway"} <= written
    (file,) = [one.split(":")[1] for one in service["volumes"] if one.startswith("./embedway.toml:")]
    entry = next(text for name, text in final_stage() if name == "ENTRYPOINT")
    assert f'"{file}"' in entry
    assert mounts & parent_folders(file)
    assert set(manifest("ConfigMap")["data"]) == {file.rpartition("/")[2]}


def test_the_image_and_its_gateways_have_one_name():
    images = {compose()["services"][name]["image"] for name in [*GATEWAYS, "tools"]}
    assert images == {pod()["containers"][0]["image"]}
    valkey = pod("StatefulSet", "embedway-valkey")["containers"][0]["image"]
    assert valkey == compose()["services"]["valkey"]["image"]


def test_grafana_finds_prometheus_and_the_dashboard():
    grafana = compose()["services"]["grafana"]["volumes"]
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text("utf-8"))["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in compose()["services"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "embedway.yaml").read_text("utf-8"))["providers"]
    assert f"./grafana/embedway.json:{provider['options']['path']}/embedway.json:ro" in grafana
    assert "./grafana/provisioning:/etc/grafana/provisioning:ro" in grafana
    scrape = yaml.safe_load((DEPLOY / "prometheus" / "gateway.yml").read_text("utf-8"))
    assert source["jsonData"]["timeInterval"] == scrape["global"]["scrape_interval"]
    command = compose()["services"]["prometheus"]["command"]
    assert "--config.file=/etc/prometheus/gateway.yml" in command
    assert all((DEPLOY / "prometheus" / name).is_file() for name in scrape["rule_files"])


def test_the_unit_uses_the_folders_that_systemd_makes():
    service = unit()["Service"]
    variables = dict(one.split("=", 1) for one in service["Environment"])
    for setting, parent in (("StateDirectory", "/var/lib"), ("CacheDirectory", "/var/cache")):
        assert service[setting] == ["embedway"]
        assert parent in {variables["XDG_STATE_HOME"], variables["XDG_CACHE_HOME"]}
    assert variables["XDG_DATA_HOME"] == "/var/lib"
    assert service["RuntimeDirectory"] == ["embedway"]
    environment = {name: value for name, value in variables.items() if name.startswith("EMBEDWAY_")}
    assert str(Config.load([SETTINGS], environ=environment).server.run_directory) == "/run/embedway"
    assert service["ExecStart"] == ["/opt/embedway/bin/embedway --config /etc/embedway/embedway.toml serve"]
    assert "MemoryDenyWriteExecute" not in UNIT.read_text("utf-8")  # the runtimes compile code in memory


def test_the_files_name_a_command_that_exists():
    assert "serve" in {command.name for command in app.registered_commands}


def test_the_autoscaler_uses_a_metric_of_the_gateway():
    pods = next(one["pods"] for one in manifest("HorizontalPodAutoscaler")["spec"]["metrics"] if one["type"] == "Pods")
    assert pods["metric"]["name"] == WAITING
    assert WAITING in SERIES
