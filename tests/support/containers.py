"""The files of `deploy/` for containers, read as their programs read them."""

import contextlib
import json
import random
import re
import shlex
import socket
from pathlib import Path

import yaml

from deployed import DEPLOY

ROOT = DEPLOY.parent
DOCKERFILE = DEPLOY / "Dockerfile"
COMPOSE = DEPLOY / "compose.yaml"
KUBERNETES = DEPLOY / "kubernetes"
SETTINGS = DEPLOY / "embedway.toml"
UNIT = DEPLOY / "embedway.service"
#: Values of a person's `.env`.
SECRETS = {"VALKEY_PASSWORD": "p4ssw0rd", "EMBEDWAY_CACHE_SECRET": "c" * 64, "GRAFANA_PASSWORD": "g4ssw0rd"}
_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?::([?-])([^}]*))?\})")


def instructions(path=DOCKERFILE):
    """Return the instructions of a Dockerfile as pairs of name and text."""
    lines = (line for line in path.read_text("utf-8").splitlines() if not line.lstrip().startswith("#"))
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def final_stage():
    """Return the instructions of the last stage, which is the image."""
    found = instructions()
    return found[max(i for i, (name, _) in enumerate(found) if name == "FROM") :]


def image_variables():
    """Return the environment of the image."""
    texts = [text for name, text in final_stage() if name == "ENV"]
    return dict(pair.split("=", 1) for text in texts for pair in shlex.split(text))


def health_command():
    """Return the command of the image's health check."""
    text = next(text for name, text in final_stage() if name == "HEALTHCHECK")
    return json.loads(text.partition("CMD ")[2])


def compose(variables=SECRETS):
    """Return the compose file with its variables replaced. Raises KeyError for a required one that is not set."""
    return _filled(yaml.safe_load(COMPOSE.read_text("utf-8")), variables)


def _filled(value, variables):
    if isinstance(value, dict):
        return {key: _filled(one, variables) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, variables) for one in value]
    if not isinstance(value, str):
        return value

    def replace(match):
        dollar, name, operator, rest = match.groups()
        if dollar:
            return "$"
        return variables.get(name) or rest if operator == "-" else variables[name]

    return _VARIABLE.sub(replace, value)


def seconds(text):
    """Return a time such as `60s` in seconds."""
    assert re.fullmatch(r"\d+s", text), text
    return int(text[:-1])


def manifests():
    """Return pairs of file and document of all manifests that the API of Kubernetes knows."""
    files = sorted(KUBERNETES.glob("*.yaml"))
    return [
        (file, document)
        for file in files
        if file.name != "kustomization.yaml"
        for document in yaml.safe_load_all(file.read_text("utf-8"))
    ]


def manifest(kind, name="embedway"):
    """Return the manifest of a kind and name."""
    (found,) = [one for _, one in manifests() if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def pod(kind="Deployment", name="embedway"):
    """Return the specification of the pods of a workload."""
    return manifest(kind, name)["spec"]["template"]["spec"]


def pod_variables(secrets):
    """Return the variables of the gateway's container as Kubernetes sets them."""
    variables = {}
    for one in pod()["containers"][0]["env"]:
        if "value" in one:
            variables[one["name"]] = re.sub(r"\$\((\w+)\)", lambda match: variables[match[1]], one["value"])
        else:
            variables[one["name"]] = secrets[one["valueFrom"]["secretKeyRef"]["key"]]
    return variables


def unit():
    """Return the settings of the systemd unit by section; each has a list of values."""
    sections = {}
    for line in UNIT.read_text("utf-8").splitlines():
        if match := re.fullmatch(r"\[(\w+)\]", line):
            section = sections.setdefault(match[1], {})
        elif line and not line.startswith("#"):
            name, equals, value = line.partition("=")
            assert equals, line
            section.setdefault(name, []).append(value)
    return sections


def parent_folders(path):
    """Return a path and all folders above it."""
    return {str(path), *map(str, Path(path).parents)}


def free_port():
    """Return a free port for a program that has no port 0.

    It is below the ports that the system gives to others, so that none of them takes it before the program starts.
    """
    while True:
        port = random.randint(15_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
