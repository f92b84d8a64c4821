"""Fixtures for tests of the dialects."""

from served_models import expected, gateway, gateway_settings, library  # noqa: F401 - fixtures
