"""The manifests: schemas of Kubernetes, references between them, and the rules for restricted pods."""

import json

import jsonschema
import kubernetes_validate
import pytest
import yaml

from containers import DEPLOY, KUBERNETES, SETTINGS, manifest, manifests, pod
from deployed import GATEWAY_ALERTS

#: Oldest version with all fields that are used, and the newest one whose schemas are installed.
VERSIONS = ["1.31", kubernetes_validate.latest_version()]
WORKLOADS = pytest.mark.parametrize(("kind", "name"), [("Deployment", "embedway"), ("StatefulSet", "embedway-valkey")])
KUSTOMIZATION = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text("utf-8"))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "document", [one for _, one in manifests()], ids=[f"{file.stem}-{one['kind']}" for file, one in manifests()]
)
def test_manifests_follow_the_schemas_of_kubernetes(document, version):
    kubernetes_validate.validate(document, version, strict=True)


def test_the_schemas_find_misspelled_fields():
    document = manifest("Deployment")
    document["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises((kubernetes_validate.ValidationError, jsonschema.ValidationError)):
        kubernetes_validate.validate(document, VERSIONS[0], strict=True)


def test_the_kustomization_applies_every_manifest_but_the_example():
    files = {file.name for file, _ in manifests()}
    assert set(KUSTOMIZATION["resources"]) == files - {"secret.example.yaml"}
    assert {one["name"] for one in KUSTOMIZATION["images"]} == {pod()["containers"][0]["image"].split(":")[0]}
    assert KUSTOMIZATION["namespace"] == manifest("Namespace")["metadata"]["name"]


def test_config_maps_have_the_texts_of_the_other_files():
    assert manifest("ConfigMap")["data"] == {"embedway.toml": SETTINGS.read_text("utf-8")}
    valkey = manifest("ConfigMap", "embedway-valkey")["data"]
    assert valkey == {"valkey.conf": (DEPLOY / "valkey" / "valkey.conf").read_text("utf-8")}


@WORKLOADS
def test_selectors_match_the_pods(kind, name):
    spec = manifest(kind, name)["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == labels == manifest("Service", name)["spec"]["selector"]
    assert manifest("NetworkPolicy", name)["spec"]["podSelector"]["matchLabels"] == labels
    for constraint in pod(kind, name).get("topologySpreadConstraints", []):
        assert constraint["labelSelector"]["matchLabels"] == labels


def test_the_budget_for_disruptions_and_the_autoscaler_name_the_deployment():
    labels = manifest("Deployment")["spec"]["selector"]["matchLabels"]
    budget = manifest("PodDisruptionBudget")["spec"]
    scaler = manifest("HorizontalPodAutoscaler")["spec"]
    assert budget["selector"]["matchLabels"] == labels
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "embedway"}
    # The autoscaler sets the replicas. Nodes can be drained: one replica more than the budget needs.
    assert "replicas" not in manifest("Deployment")["spec"]
    assert budget["maxUnavailable"] < scaler["minReplicas"] <= scaler["maxReplicas"]


@WORKLOADS
def test_names_in_pods_exist(kind, name):
    spec = pod(kind, name)
    assert manifest("ServiceAccount", spec["serviceAccountName"])["automountServiceAccountToken"] is False
    container = spec["containers"][0]
    claims = manifest(kind, name)["spec"].get("volumeClaimTemplates", [])
    volumes = {one["name"] for one in spec["volumes"]} | {one["metadata"]["name"] for one in claims}
    assert {one["name"] for one in container["volumeMounts"]} == volumes
    for volume in spec["volumes"]:
        if "configMap" in volume:
            assert manifest("ConfigMap", volume["configMap"]["name"])["data"]
    secret = manifest("Secret")
    for variable in container["env"]:
        if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
            assert reference["name"] == secret["metadata"]["name"]
            assert reference["key"] in secret["stringData"]
    ports = {one["name"] for one in container["ports"]}
    assert {one["targetPort"] for one in manifest("Service", name)["spec"]["ports"]} <= ports
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe].get("httpGet", {}).get("port", "http") in ports | {"http"}


@WORKLOADS
def test_pods_are_restricted(kind, name):
    spec = pod(kind, name)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        assert container["image"].partition(":")[2] not in {"", "latest"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)


@WORKLOADS
def test_kubernetes_sets_no_variables_that_look_like_settings(kind, name):
    # For a service `embedway`, it would set EMBEDWAY_PORT and others.
    assert pod(kind, name)["enableServiceLinks"] is False


@WORKLOADS
def test_probes_give_time_to_start_and_to_recover(kind, name):
    container = pod(kind, name)["containers"][0]
    startup, live, ready = (container[f"{one}Probe"] for one in ("startup", "liveness", "readiness"))
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 300
    assert live["periodSeconds"] * live["failureThreshold"] >= 60
    assert ready["periodSeconds"] * ready["failureThreshold"] <= 15
    assert all(probe["timeoutSeconds"] <= probe["periodSeconds"] for probe in (startup, live, ready))


def test_the_example_of_a_secret_contains_none():
    assert set(manifest("Secret")["stringData"].values()) == {"REPLACE"}
    others = [one for _, one in manifests() if one["kind"] != "Secret"]
    assert "stringData" not in json.dumps(others)


def test_the_optional_files_agree_with_the_service_and_the_autoscaler():
    monitor = yaml.safe_load((KUBERNETES / "optional" / "servicemonitor.yaml").read_text("utf-8"))
    service = manifest("Service")
    assert monitor["metadata"]["namespace"] == KUSTOMIZATION["namespace"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert {one["port"] for one in monitor["spec"]["endpoints"]} <= {one["name"] for one in service["spec"]["ports"]}
    rule = yaml.safe_load((KUBERNETES / "optional" / "prometheusrule.yaml").read_text("utf-8"))
    assert rule["metadata"] == monitor["metadata"]
    assert rule["spec"] == yaml.safe_load(GATEWAY_ALERTS.read_text("utf-8"))
    adapter = yaml.safe_load((KUBERNETES / "optional" / "prometheus-adapter.yaml").read_text("utf-8"))
    pods = next(one["pods"] for one in manifest("HorizontalPodAutoscaler")["spec"]["metrics"] if one["type"] == "Pods")
    (rule,) = adapter["rules"]["custom"]
    assert rule["seriesQuery"].startswith(pods["metric"]["name"] + "{")
