"""Variables of the hub that are neither true nor false are errors."""

import pytest

from embedway.config import Config
from embedway.errors import ConfigError

FLAGS = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_IMPLICIT_TOKEN")


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize("value", ["maybe", "y", "2", "true, please"])
def test_an_unclear_flag_is_an_error(name, value):
    with pytest.raises(ConfigError) as caught:
        Config.load(environ={name: value})
    assert str(caught.value) == f"environment: {name}: must be 1, ON, YES or TRUE, or 0, OFF, NO or FALSE"


@pytest.mark.parametrize(
    ("value", "offline"), [("", False), ("0", False), ("no", False), (" Off ", False), ("on", True)]
)
def test_a_clear_flag_is_read(value, offline):
    assert Config.load(environ={"HF_HUB_OFFLINE": value}).weights.offline is offline


def test_blanks_around_a_flag_are_ignored():
    environ = {"HF_HUB_DISABLE_IMPLICIT_TOKEN": " 1 ", "HF_TOKEN": "hf_a"}
    assert Config.load(environ=environ).weights.hub_token is None
