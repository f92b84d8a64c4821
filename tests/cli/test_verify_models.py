"""`embedway models verify`: exit codes, the report, and the list of proofs."""

import pytest


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
    assert command("models", "verify", "--list").stdout.startswith("no proofs")
    assert command("models", "verify", "--remove", proof["name"]).code == 2


@pytest.mark.parametrize(
    "arguments", [(), ("a",), ("a", "b", "c"), ("a", "b", "--list"), ("all-MiniLM-L6-v2", "all-MiniLM-L6-v2#int3")]
)
def test_wrong_arguments_are_wrong_usage(command, arguments):
    assert command("models", "verify", *arguments).code == 2
