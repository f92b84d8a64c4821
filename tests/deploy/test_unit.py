"""The systemd unit: one value for each setting, and a service without rights."""

from containers import unit

#: Settings that may be given several times.
REPEATED = {"Environment", "SystemCallFilter"}


def test_settings_are_given_once():
    for section in unit().values():
        assert {name for name, values in section.items() if len(values) > 1} <= REPEATED


def test_the_unit_has_its_sections():
    assert set(unit()) == {"Unit", "Service", "Install"}


def test_the_service_has_no_rights():
    service = unit()["Service"]
    assert service["DynamicUser"] == ["yes"]
    assert service["CapabilityBoundingSet"] == [""]
    assert service["NoNewPrivileges"] == ["yes"]
    assert service["ProtectSystem"] == ["strict"]
    assert service["Restart"] == ["on-failure"]
