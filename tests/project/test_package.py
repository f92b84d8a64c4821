"""Content of the wheel."""

import subprocess
import sys
import zipfile
from pathlib import Path

import embedway.errors

PACKAGE = Path(embedway.errors.__file__).parent
CHECKOUT = Path(__file__).parents[2]


def test_the_wheel_holds_every_file_of_the_package(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=CHECKOUT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("embedway/")}
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc")
    wanted = {path.relative_to(PACKAGE.parent).as_posix() for path in files}
    assert packed == wanted
    assert "embedway/ledger/lua/ledger.lua" in packed
