"""The commands `crossbind models`, `models get` and `models measure`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serve.cli import models_command
from serve.cli.commands import app


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CROSSBIND_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


def crossbind(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == status, done.output
    assert "Traceback" not in done.output
    return done.output


def test_the_table_is_for_people_and_for_programs() -> None:
    rows = {row["name"]: row for row in json.loads(crossbind("models", "--json"))}
    assert next(iter(rows)) == "small" and rows["small"]["here"] is True
    assert rows["siglip2-base"]["kind"] == "preset" and rows["siglip2-base"]["here"] is False
    assert rows["imagebind-huge"]["kind"] == "model" and "77.7" in rows["imagebind-huge"]["quality"]
    assert rows["st:NAME"]["kind"] == "pattern"
    shown = crossbind("models")
    for name in ("small", "siglip2-base", "to get", "here", "ImageNet zero-shot 78.2 %", "st:NAME"):
        assert name in shown


def test_a_measured_speed_is_shown() -> None:
    found = json.loads(crossbind("models", "measure", "small", "--json"))
    assert found["small"]["images_per_s"] > 0
    rows = {row["name"]: row for row in json.loads(crossbind("models", "--json"))}
    assert rows["small"]["speed"] == found["small"]
    assert "pictures/s" in crossbind("models", "measure", "small")


def test_what_cannot_be_had_is_one_sentence(tmp_path: Path) -> None:
    gone = str(tmp_path / "x")
    assert "no such file or folder" in crossbind("models", "get", "siglip2-base", "--from", gone, status=1)
    assert "could not be downloaded" in crossbind("models", "get", "siglip2-base", status=1)
    assert "is for --from FILE" in crossbind("models", "get", "siglip2-base", "--sha256", "0", status=2)
    assert "no model 'what'; known: clip" in crossbind("models", "measure", "what", status=2)


def test_the_first_run_names_a_stronger_model(capsys: pytest.CaptureFixture[str]) -> None:
    models_command.advise("small", free_gb=64.0)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "small is the quick start; this machine could run pe-core-b16" in said
    models_command.advise("small", free_gb=1.0)
    models_command.advise("clip-vit-b32", free_gb=64.0)
    assert capsys.readouterr().err == ""
