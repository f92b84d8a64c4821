"""The systemd unit: one value for each setting, and a service without rights."""

import subprocess

import pytest

from containers import UNIT, unit
from prometheus_server import program

#: Settings that may be given several times.
REPEATED = {"Environment", "SystemCallFilter"}


def analyze(*arguments):
    command = [program("systemd-analyze"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_settings_are_given_once():
    for section in unit().values():
        assert {name for name, values in section.items() if len(values) > 1} <= REPEATED


def test_the_unit_has_its_sections():
    assert set(unit()) == {"Unit", "Service", "Install"}


def test_the_service_has_no_rights():
    service = unit()["Service"]
    assert service["User"] == ["embedway"]
    assert service["CapabilityBoundingSet"] == [""]
    assert service["NoNewPrivileges"] == ["yes"]
    assert service["ProtectSystem"] == ["strict"]
    assert service["Restart"] == ["on-failure"]


@pytest.mark.systemd
def test_systemd_reads_the_unit_without_a_remark(tmp_path):
    text = UNIT.read_text("utf-8")
    assert text.count("/opt/embedway/bin/embedway") == 1
    # systemd looks for the program on this machine.
    (tmp_path / UNIT.name).write_text(text.replace("/opt/embedway/bin/embedway", "/bin/true"))
    done = analyze("verify", tmp_path / UNIT.name)
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / UNIT.name).write_text(text.replace("RestartSec=2", "RestartSeconds=2"))
    assert "RestartSeconds" in analyze("verify", tmp_path / UNIT.name).stderr


@pytest.mark.systemd
def test_systemd_rates_the_exposure_of_the_service_as_low():
    done = analyze("security", "--offline=true", "--threshold=20", UNIT)
    assert done.returncode == 0, done.stdout
