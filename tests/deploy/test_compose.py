"""The compose file: the official schema of compose, and references, ports, images and secrets in it."""

import importlib.util
import json
import re
from pathlib import Path

import jsonschema
import pytest

from containers import DEPLOY, SECRETS, compose, seconds

#: Compose's own schema, which check-jsonschema carries.
_PACKAGE = Path(importlib.util.find_spec("check_jsonschema").origin).parent
SCHEMA = _PACKAGE / "builtin_schemas" / "vendor" / "compose-spec.json"
SERVICES = pytest.mark.parametrize(("name", "service"), compose()["services"].items(), ids=compose()["services"])


def problems(document):
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text("utf-8")))
    return [error.message for error in validator.iter_errors(document)]


def test_the_file_follows_the_schema_of_compose():
    assert problems(compose()) == []


@pytest.mark.parametrize("path", [("restrt",), ("healthcheck", "tests"), ("deploy", "replica")])
def test_the_schema_finds_misspelled_keys(path):
    document = compose()
    place = document["services"]["gateway-1"]
    for name in path[:-1]:
        place = place.setdefault(name, {})
    place[path[-1]] = "x"
    assert problems(document)


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_have_no_default(name):
    with pytest.raises(KeyError, match=name):
        compose({key: value for key, value in SECRETS.items() if key != name})


def test_the_example_of_variables_names_all_of_them():
    lines = (DEPLOY / ".env.example").read_text("utf-8").splitlines()
    example = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"\w+=", line) for line in example)
    used = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text("utf-8")))
    assert {line[:-1] for line in example} == used


@SERVICES
def test_images_are_pinned_and_only_the_gateway_is_built(name, service):
    assert re.fullmatch(r"[a-z/]+:(v?\d+\.\d+\.\d+(-\w+)?|local)", service["image"])
    assert ("build" in service) is (service["image"] == "embedway:local")


@SERVICES
def test_ports_are_published_on_the_loopback_address_only(name, service):
    for port in service.get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)


def test_no_port_is_published_twice():
    ports = [port.split(":")[1] for one in compose()["services"].values() for port in one.get("ports", [])]
    assert len(ports) == len(set(ports))


@SERVICES
def test_volumes_networks_and_other_services_exist(name, service):
    document = compose()
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        assert (DEPLOY / source).exists() if source.startswith(".") else source in document["volumes"], source
    assert set(service.get("networks", [])) <= set(document["networks"])
    for other, condition in service.get("depends_on", {}).items():
        health = document["services"][other].get("healthcheck")
        assert condition == {"condition": "service_healthy"}
        # The gateway's check is that of its image.
        assert health or document["services"][other]["image"] == "embedway:local"


def test_every_volume_and_network_is_used():
    document = compose()
    mounts = {volume.split(":")[0] for one in document["services"].values() for volume in one.get("volumes", [])}
    networks = {network for one in document["services"].values() for network in one.get("networks", ["default"])}
    assert {mount for mount in mounts if not mount.startswith(".")} == set(document["volumes"])
    assert networks == set(document["networks"])


@SERVICES
def test_services_restart_and_rotate_their_logs(name, service):
    assert service["restart"] == ("no" if name == "tools" else "unless-stopped")
    assert service["logging"]["options"]["max-size"]
    health = service.get("healthcheck", {})
    if "test" in health:
        assert seconds(health["timeout"]) <= seconds(health["interval"])


@pytest.mark.parametrize("name", ["gateway-1", "gateway-2", "tools"])
def test_the_gateway_has_no_rights_and_writes_only_to_its_folders(name):
    service = compose()["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    written = [one.split(":")[0] for one in service["tmpfs"]]
    assert written == ["/tmp", "/run/embedway", "/var/lib/embedway", "/var/cache/embedway"]  # noqa: S108
    assert all("uid=10001,gid=10001" in one for one in service["tmpfs"][1:])


def test_no_password_is_an_argument():
    for service in compose()["services"].values():
        words = json.dumps([service.get("command"), service.get("healthcheck")])
        assert not any(secret in words for secret in SECRETS.values())
