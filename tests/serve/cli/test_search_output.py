"""What `crossbind search` and `crossbind shell` print: formats, copies, suggestions, and lines of progress."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bind import zoo
from serve.cli import progress, showing
from serve.cli.commands import app
from serve.library.library import Library
from tests.serve import tiny

LONG = "a folder with spaces/" + "very long name " * 12


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("output")
    for number, name in enumerate(("red", "green", f"{LONG}blue", "two\nlines")):
        tiny.picture(place / "media" / f"{name}.png", number)
    with Library.open(place / "library", tiny.model()) as library:
        library.index(place / "media")
    return place


@pytest.fixture(autouse=True)
def tiny_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "load", lambda *_, **__: tiny.model())
    monkeypatch.setattr("bind.options.LoadOptions.check", lambda _: None)


def search(place: Path, *arguments: object, stdin: str | None = None, command: str = "search") -> Any:
    nearest = [] if command == "serve" or "--plain" in arguments else ["--nearest"]
    arguments = tuple(one for one in arguments if one != "--plain")
    given = [command, "--library", place / "library", *nearest, *arguments]
    return CliRunner().invoke(app, [str(one) for one in given], input=stdin)


def test_a_pipe_gets_paths_one_a_line(place: Path) -> None:
    done = search(place, "red", "--k", "9")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert sorted(lines) == sorted(
        [*(f"{place}/media/{name}.png" for name in ("red", "green", f"{LONG}blue")), f"{place}/media/two\\nlines.png"]
    )


def test_a_table_never_breaks_a_path(place: Path) -> None:
    done = search(place, "red", "--k", "9", "--format", "table")
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["kind", "score", "cosine", "file"] and len(lines) == 4
    assert sum(line.endswith(f"{place}/media/{LONG}blue.png") for line in lines) == 1
    assert lines[0].split()[0] == "1"


def test_csv_and_json(place: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(search(place, "red", "--format", "csv", "--k", "9").stdout)))
    assert len(rows) == 4 and rows[0]["name"] == "red.png" and all(float(row["score"]) < 9 for row in rows)
    assert {row["name"] for row in rows} >= {"red.png", "green.png"}
    told = json.loads(search(place, "red", "--format", "json", "--k", "2").stdout)
    assert told == json.loads(search(place, "red", "--json", "--k", "2").stdout) and len(told) == 2
    assert search(place, "red", "--where", "name = 'x'", "--format", "csv").stdout.count("\n") == 1


def test_hits_are_copied_and_opened(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies" / "red.png").write_text("mine")
    done = search(place, "red", "--where", "name in ('red.png', 'green.png')", "--copy-to", tmp_path / "copies")
    assert done.exit_code == 0, done.output
    assert sorted(os.listdir(tmp_path / "copies")) == ["green.png", "red-2.png", "red.png"]
    assert (tmp_path / "copies" / "red.png").read_text() == "mine"
    assert (tmp_path / "copies" / "red-2.png").read_bytes() == (place / "media" / "red.png").read_bytes()
    opened: list[str] = []
    monkeypatch.setattr("typer.launch", lambda path: opened.append(path) or 0)
    search(place, "red", "--where", "name = 'red.png'", "--open")
    assert opened == [f"{place}/media/red.png"]
    (place / "media" / "green.png").rename(tmp_path / "green.png")
    done = search(place, "red", "--where", "name = 'green.png'", "--copy-to", tmp_path / "more")
    (tmp_path / "green.png").rename(place / "media" / "green.png")
    assert done.exit_code == 1 and "not copied" in done.stderr


def test_a_shell_goes_on_after_mistakes(place: Path) -> None:
    lines = [
        "red",
        ":k 1",
        "green",
        "image:'",
        ":where name = 'red.png'",
        "x",
        ":where",
        ":want smell",
        "x",
        ":nonsense",
    ]
    done = search(place, "--format", "paths", stdin="\n".join([*lines, ":want", ":quit", "never"]), command="shell")
    assert done.exit_code == 0, done.output
    found = done.stdout.splitlines()
    assert len(found) == 4 + 1 + 1 and found[-1] == f"{place}/media/red.png"
    told = done.stderr
    assert "quot" in told and "smell" in told and "no line :nonsense" in told


def test_what_is_no_library_is_said(place: Path, tmp_path: Path) -> None:
    for command, given in (("search", ["x"]), ("shell", []), ("serve", ["--port", "0"])):
        for folder, what in ((tmp_path, "is a folder, but no library"), (place / "librery", "did you mean")):
            done = CliRunner().invoke(app, [command, *given, "--library", str(folder)])
            assert done.exit_code == 2 and what in done.stderr, done.output
            assert "there is no library" in done.stderr and not (folder / "catalogue.sqlite").exists()
    done = CliRunner().invoke(app, ["index", str(place / "medai"), "--library", str(tmp_path / "new")])
    assert done.exit_code == 2 and f"did you mean {place / 'media'}?" in done.stderr


def test_mistyped_options_and_words_with_a_dash_get_a_way_out(place: Path) -> None:
    done = search(place, "red", "--wher", "x")
    assert done.exit_code == 2 and "--where" in done.stderr
    done = search(place, "-cat")
    assert done.exit_code == 2 and "stand behind --" in done.stderr.replace("\n", " ").replace("│", "").replace(
        "  ", " "
    )
    assert search(place, "--k", "1", "--", "-cat").exit_code in (0, 2)


def test_a_mistyped_model_gets_a_suggestion(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    done = search(place, "red", "--model", "smal")
    assert done.exit_code == 2 and "did you mean small?" in done.stderr


def test_a_log_gets_a_line_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.show_progress() as tell:
        for done in range(0, 101):
            now = float(done)
            tell(done, 300)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10 and lines[0] == "10 of 300 files, 1.0 a second, 4:50 left"
    assert progress.duration(7390) == "2:03:10"


def test_a_terminal_gets_a_table(place: Path) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    import sys

    before, sys.stdout = sys.stdout, Terminal()
    try:
        assert showing.format_or_default(None) == "table"
    finally:
        sys.stdout = before
    assert showing.format_or_default("csv") == "csv"
