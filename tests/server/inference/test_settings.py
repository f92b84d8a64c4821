"""The limits of the inference process are those of the settings."""

from embedway.config import Config
from embedway.server.inference.settings import InferenceLimits


def limits_of(**settings):
    return InferenceLimits.of(
        Config.load([], overrides={f"server.{key}": value for key, value in settings.items()}).server
    )


def test_the_limits_are_those_of_the_settings():
    found = limits_of(keep_alive_s=300, models_mib=2, load_wait_s=7, hang_s=11)
    assert found == InferenceLimits(300.0, 2 * 2**20, 7.0, 11.0)


def test_the_defaults_are_those_of_the_settings():
    assert limits_of() == InferenceLimits()
