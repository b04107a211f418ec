"""Settings of the server: where each comes from, and that all faults are told at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from serve.cli.commands import app
from serve.engine.settings import NOT_OPTIONS, PREFIX, Settings, SettingsError

KEY = "a-key-of-this-server"


def test_an_option_is_stronger_than_a_variable_and_that_than_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("port = 1\nmax_hits = 2\nmax_batch = 3\n")
    monkeypatch.setenv("CROSSBIND_SERVE_PORT", "4")
    monkeypatch.setenv("CROSSBIND_SERVE_MAX_HITS", "5")
    found = Settings.load(file, port="6")
    assert (found.port, found.max_hits, found.max_batch, found.max_terms) == (6, 5, 3, 256)


def test_names_of_variables_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSBIND_SERVE_MAX_BODY_MB", "300")
    monkeypatch.setenv("CROSSBIND_SERVE_ALLOWED_HOST", "One.example two.example")
    monkeypatch.setenv("CROSSBIND_API_KEYS", f"{KEY}-1, {KEY}-2")
    found = Settings()
    assert (found.max_body_bytes, found.max_bodies_bytes) == (300 * 2**20, 600 * 2**20)
    assert found.allowed_host == ("one.example", "two.example")
    assert found.api_keys == (f"{KEY}-1", f"{KEY}-2")


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("max_wating = 3\n")
    with pytest.raises(SettingsError) as told:
        Settings.load(file, host="0.0.0.0", port="x", max_batch=0, deadline_s="0", max_terms=9, max_waiting=8)
    lines = str(told.value).splitlines()
    assert {line.partition(":")[0] for line in lines} == {
        "max_wating", "host", "port", "max_batch", "deadline_s", "max_terms"
    }  # fmt: skip
    file.write_text("port =")
    with pytest.raises(SettingsError, match="not TOML"):
        Settings.load(file)


def test_every_setting_has_an_option_a_help_and_a_variable() -> None:
    shown = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "400"}, terminal_width=400).output
    for name, field in Settings.model_fields.items():
        assert field.description
        if name not in NOT_OPTIONS:
            assert f"--{name.replace('_', '-')} " in shown and f"{PREFIX}{name.upper()}" in shown, name
