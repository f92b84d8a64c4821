"""Fixtures for tests of the dialects."""

from gateways import gateway, gateway_settings, library  # noqa: F401 - fixtures
