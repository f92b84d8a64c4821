"""`embedway models verify`: exit codes, the report, and the list of proofs."""

import json

import pytest

from drift_faults import WIDTH, rotated
from drifting_server import DriftingServer, settings_of
from embedway.providers.fake import vector_of


@pytest.fixture
def command(own_settings, default_model_directory):
    """Return a runner whose default model is on this machine."""
    return lambda *arguments: own_settings(
        *arguments,
        variables={"EMBEDWAY_WEIGHTS__DIRECTORY": str(default_model_directory), "EMBEDWAY_WEIGHTS__OFFLINE": "true"},
    )


def test_the_same_model_on_two_backends_is_one_space_and_listed_until_removed(command):
    names = "all-MiniLM-L6-v2#onnxruntime,f32", "all-MiniLM-L6-v2#openvino,f32"
    done = command("models", "verify", *names)
    assert done.code == 0, done.stderr
    assert done.stdout.splitlines()[0] == "local:{} and local:{}: same space".format(*names)
    assert "probe texts are embedded by both, for about $0" in done.stderr
    (proof,) = command("models", "verify", "--list", "--json").json
    assert (proof["type"], proof["verdict"], proof["is_measured"]) == ("proof", "same space", True)
    assert proof["a"]["name"] == f"local:{names[0]}"
    assert proof["name"] in command("models", "verify", "--list").stdout
    assert command("models", "verify", "--remove", proof["name"]).code == 0
    assert command("models", "verify", "--list").stdout.startswith("There are no proofs")
    assert command("models", "verify", "--remove", proof["name"]).code == 2


@pytest.mark.parametrize(
    "arguments", [(), ("a",), ("a", "b", "c"), ("a", "b", "--list"), ("all-MiniLM-L6-v2", "all-MiniLM-L6-v2#int3")]
)
def test_wrong_arguments_are_wrong_usage(command, arguments):
    assert command("models", "verify", *arguments).code == 2


@pytest.fixture
def servers():
    made = [DriftingServer(VectorsOfTexts()) for _ in range(2)]
    yield made
    for one in made:
        one.close()


class VectorsOfTexts(dict):
    def get(self, text, default=None):
        del default
        return vector_of(text, WIDTH)

    def __missing__(self, text):
        return self.get(text)


def test_exit_codes_distinguish_another_space_from_no_comparison(started, servers, place):
    settings = settings_of(servers, place)
    settings["upstream"]["deadline_s"] = 30
    (place / "own.json").write_text(json.dumps(settings))
    command = ("-c", "own.json", "models", "verify", "routes.r0", "routes.r1")
    assert started(*command).code == 0
    servers[1].fault = rotated
    other = started(*command)
    assert other.code == 1, other.stderr
    servers[1].status = 503
    failed = started(*command)
    assert (failed.code, failed.stdout) == (4, "")
    assert "routes.r1" in failed.stderr
    servers[1].close()
    assert started(*command).code == 4
    assert started(*command[:-1], "routes.none").code == 2
