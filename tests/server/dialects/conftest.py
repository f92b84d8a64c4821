"""Fixtures for tests of the dialects."""

from served_models import gateway, gateway_settings, library  # noqa: F401 - fixtures
