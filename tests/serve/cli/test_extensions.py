"""What other packages and folders add, as `crossbind models` and `crossbind doctor` show it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent

SPEC = """
from dataclasses import replace
from bind.modalities import text
SPEC = replace(text.SPEC, name={name!r}, default_for=frozenset(), families=frozenset())
"""
BUILDER = """
from data_manifests import Builder
BUILDER = Builder("Mine", "CC0", "nowhere", "no files", lambda download: iter(()))
"""
POINTS = """
[crossbind.modalities]
smell = senses_smell:SPEC
taste = no_such_module:SPEC
[crossbind.encoders]
senses-net = senses_net
[crossbind.datasets]
senses-set = senses_set:BUILDER
audiocaps = senses_set:BUILDER
wrong = senses_smell:SPEC
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables under which a package `senses` is installed and a folder has the modality `touch` and a helper."""
    package, folder = tmp_path_factory.mktemp("package"), tmp_path_factory.mktemp("folder")
    information = package / "senses-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: senses\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(POINTS)
    (package / "senses_smell.py").write_text(SPEC.format(name="smell"))
    (package / "senses_net.py").write_text("from torch import nn\ndef build(options):\n    return nn.Identity()\n")
    (package / "senses_set.py").write_text(BUILDER)
    (folder / "touch.py").write_text(SPEC.format(name="touch"))
    (folder / "touch_tools.py").write_text("HELP = 1\n")
    return os.environ | {"PYTHONPATH": str(package), "CROSSBIND_MODALITIES": str(folder)}


def crossbind(environment: dict[str, str], *arguments: str) -> str:
    command = [BIN / "crossbind", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment).stdout


def test_models_lists_what_is_added_and_by_whom(environment: dict[str, str]) -> None:
    listed = json.loads(crossbind(environment, "models", "--json"))
    assert listed[0]["name"] == "small"
    added = {(row["kind"], row["name"]): row for row in listed if "origin" in row}
    good = {key: row["origin"] for key, row in added.items() if not row["problem"]}
    folder = environment["CROSSBIND_MODALITIES"]
    assert good == {
        ("modality", "smell"): "senses_smell:SPEC (senses)",
        ("modality", "touch"): f"{folder}/touch.py",
        ("encoder", "senses-net"): "senses_net (senses)",
        ("data set", "senses-set"): "senses_set:BUILDER (senses)",
    }
    problems = {key[1]: row["problem"] for key, row in added.items() if row["problem"]}
    assert problems.keys() == {"taste", "audiocaps", "wrong"}
    assert "no_such_module" in problems["taste"]
    assert "audiocaps.py and senses_set:BUILDER (senses)" in problems["audiocaps"]
    assert problems["wrong"].startswith("senses_smell:SPEC (senses): expected a Builder")
    shown = crossbind(environment, "models").splitlines()
    assert "modality smell, from senses_smell:SPEC (senses)" in shown


def test_doctor_shows_the_same(environment: dict[str, str]) -> None:
    checks = {check["name"]: check for check in json.loads(crossbind(environment, "doctor", "--json"))}
    assert checks["crossbind.modalities: smell"]["state"] == "ok"
    assert checks["CROSSBIND_MODALITIES: touch"]["state"] == "ok"
    assert checks["crossbind.encoders: senses-net"]["detail"] == "encoder of senses_net (senses)"
    assert checks["crossbind.datasets: senses-set"]["state"] == "ok"
    assert checks["crossbind.modalities: taste"]["state"] == "missing"
    assert "no_such_module" in checks["crossbind.modalities: taste"]["detail"]


def test_two_packages_of_one_name_are_named(environment: dict[str, str], tmp_path: Path) -> None:
    other = tmp_path / "others-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    (other / "entry_points.txt").write_text("[crossbind.encoders]\nsenses-net = others_net\n")
    both = environment | {"PYTHONPATH": f"{environment['PYTHONPATH']}{os.pathsep}{tmp_path}"}
    shown = crossbind(both, "models")
    assert "senses_net (senses) and others_net (others)" in shown or "others_net (others) and senses_net" in shown


def test_nothing_is_imported_at_the_start() -> None:
    program = "import sys, serve.cli.extensions; assert not {'bind.modalities', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
