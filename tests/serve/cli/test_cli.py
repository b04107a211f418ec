"""The command line as a person and a program meet it."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

import bind
from tests.serve.command import crossbind


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    for number, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (80, 60), colour).save(folder / f"{number}.png")
    (folder / "0.png.json").write_text('{"caption": "red"}')
    (folder / ".hidden.png").write_bytes(b"not shown")
    (folder / "note.txt").write_text("a red square")
    return folder


def test_embeds_a_folder_and_words(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "vectors.npz"
    done = crossbind("embed", folder, "text:a red square", "--out", out)
    assert done.returncode == 0, done.stderr
    found = np.load(out)
    model = bind.load("small")
    assert found["paths"].tolist() == [str(folder / n) for n in ("0.png", "1.png", "2.png", "note.txt")] + [
        "text:a red square"
    ]
    assert found["modalities"].tolist() == ["image"] * 3 + ["text"] * 2
    assert str(found["space"]) == model.space
    assert "5 vectors of 384 dimensions" in done.stdout
    np.testing.assert_allclose(found["vectors"][3], found["vectors"][4], atol=1e-5)
    np.testing.assert_allclose(found["vectors"][0], model.embed([folder / "0.png"]).vectors[0], atol=1e-5)


def test_bad_inputs_are_named_and_the_rest_is_done(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"nothing")
    out = tmp_path / "v.parquet"
    done = crossbind("embed", folder / "1.png", tmp_path / "bad.jpg", tmp_path / "no.wav", "--out", out, "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["embedded"] == 1
    assert [entry["path"] for entry in report["skipped"]] == [str(tmp_path / "bad.jpg"), str(tmp_path / "no.wav")]
    table = parquet.read_table(out)
    assert table.column("modality").to_pylist() == ["image"]
    assert len(table.column("vector")[0].as_py()) == 384
    assert table.schema.metadata[b"space"].decode() == report["space"]


def test_file_names_need_not_be_utf_8(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    name = os.path.join(os.fsencode(media), b"caf\xe9.png")
    Image.new("RGB", (30, 30), "red").save(tmp_path / "x.png")
    os.rename(tmp_path / "x.png", name)
    with open(os.path.join(os.fsencode(media), b"bad\xe9.png"), "wb") as bad:
        bad.write(b"x")
    for out in ("v.npz", "v.parquet"):
        done = crossbind("embed", media, "--out", tmp_path / out)
        assert done.returncode == 1
        assert "1 vectors" in done.stdout
    assert parquet.read_table(tmp_path / "v.parquet").column("path").to_pylist() == [
        f"{media}/caf\N{REPLACEMENT CHARACTER}.png"
    ]
    done = crossbind("index", media, "--library", tmp_path / "library")
    assert done.returncode == 0 and f"skipped {media}/bad" in done.stderr
    assert "1 added" in done.stdout
    found = crossbind("search", "red", "--library", tmp_path / "library")
    assert found.returncode == 0
    assert found.stdout == f"{media}/caf\\udce9.png\n"


CLIP = ["embed", "x.png", "--out", "x.npz", "--model", "clip-vit-b32"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["embed", "x.png"], "--out"),
        (["embed", "x.png", "--out", "x.txt"], ".npz or .parquet"),
        (["embed", "x.png", "--out", "no/folder/x.npz"], "there is no folder"),
        (["embed", "x.png", "--out", "x.npz", "--model", "smal"], "no model 'smal'; known:"),
        ([*CLIP, "--weights", "random", "--modality", "thermal"], "not thermal"),
        (["embed", "x.png", "--out", "x.npz", "--device", "cuda"], "no CUDA device"),
        (["embed", "x.png", "--out", "x.npz", "--decode", "gpu"], "--decode gpu: expected --device cuda"),
        (["embed", "x.png", "--out", "x.npz", "--model", "imagebind-huge"], "needs weights=PATH"),
        (["nonsense"], "No such command"),
    ],
)
def test_usage_errors_exit_with_2(arguments: list[str], reason: str) -> None:
    done = crossbind(*arguments)
    assert done.returncode == 2
    assert reason in done.stderr.replace("\n", " ")


def test_models_and_doctor() -> None:
    listed = json.loads(crossbind("models", "--json").stdout)
    assert listed[0]["name"] == "small", "the default comes first"
    assert {entry["name"] for entry in listed if entry["kind"] == "model"} == set(bind.names())
    assert {entry["name"] for entry in listed if entry["kind"] == "pattern"} == {
        *("clip-MODEL", "st:NAME", "clap:NAME", "pe-av:NAME", "timm:MODEL")
    }
    shown = crossbind("models").stdout
    assert "small, the default: " in shown
    assert "clip-vit-b32" in shown and "timm:MODEL" in shown
    done = crossbind("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 0, [check for check in checks.values() if check["state"] == "missing"]
    assert checks["decode workers"]["state"] == checks["model small"]["state"] == "ok"
    assert "torch" in crossbind("doctor").stdout


def test_demo_prints_searches_and_every_sample(tmp_path: Path) -> None:
    first = crossbind("demo", "--folder", tmp_path)
    assert first.returncode == 0, first.stderr
    parts = (
        "photos/coffee.png",
        "clips/bikes.mp4",
        "composed",
        "filtered",
        "chelsea.png",
        "moon.png",
        "thermal image -> pictures",
    )
    for part in parts:
        assert part in first.stdout, part
    again = crossbind("demo", "--folder", tmp_path)
    assert "0 files added, 32 unchanged" in again.stdout


@pytest.fixture(scope="module")
def library(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("library") / "of mine"
    done = crossbind("index", folder, "--library", place)
    assert done.returncode == 0, done.stderr
    assert "4 added, 0 updated" in done.stdout
    assert "4 files, 3 image, 1 text" in done.stdout
    return place


def test_index_again_reports_for_programs(folder: Path, library: Path, tmp_path: Path) -> None:
    done = crossbind("index", folder, "--library", library, "--json")
    report = json.loads(done.stdout)
    assert (report["added"], report["unchanged"], report["items"]) == (0, 4, {"image": 3, "text": 1})
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    done = crossbind("index", tmp_path, "--library", tmp_path / "other")
    assert done.returncode == 0 and f"skipped {tmp_path / 'bad.png'}: " in done.stderr
    done = crossbind("index", tmp_path, "--library", tmp_path / "third", "--strict")
    assert done.returncode == 1
    assert f"skipped {tmp_path / 'bad.png'}: " in done.stderr


def test_search_with_words_a_file_and_a_mixture(folder: Path, library: Path) -> None:
    red = folder / "0.png"
    hits = json.loads(crossbind("search", red, "--library", library, "--json", "--want", "image").stdout)
    assert hits[0]["path"] == str(red)
    assert hits[0]["cosine"] == pytest.approx(1, abs=1e-4)
    assert hits[0]["metadata"] == {"caption": "red", "width": 80, "height": 60}
    mixed = crossbind("search", f"image:'{red}' - text:'a blue square'", "--library", library, "--k", 2)
    assert mixed.returncode == 0
    assert "0.png" in mixed.stdout
    only = json.loads(crossbind("search", "red", "--library", library, "--where", "name = '1.png'", "--json").stdout)
    assert [Path(hit["path"]).name for hit in only] == ["1.png"]
    none = crossbind("search", "x", "--library", library, "--where", "date < '1999'")
    assert (none.returncode, none.stdout, "nothing found" in none.stderr) == (0, "", True)


def test_search_makes_thumbnails(folder: Path, library: Path) -> None:
    done = crossbind("search", "red", "--library", library, "--thumbnails", "--json", "--want", "image")
    for hit in json.loads(done.stdout):
        picture = Image.open(hit["thumbnail"])
        assert picture.size == (256, 256)
        if hit["path"] == str(folder / "0.png"):
            red, green, blue = picture.resize((1, 1)).getpixel((0, 0))
            assert red > 250 and green < 5 and blue < 5


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["red"], "no library"),
        (["image:'x"], "quot"),
        (["red - text:'red'"], "cancel"),
        (["image:/no/such.png"], "does not exist"),
        (["red", "--where", "size ! 3"], "^"),
        (["red", "--want", "smell"], "smell"),
        (["red", "--k", "0"], "--k"),
        (["red", "--model", "clip-vit-b32", "--weights", "random"], "small"),
    ],
)
def test_search_says_what_is_wrong(arguments: list[str], reason: str, library: Path, tmp_path: Path) -> None:
    place = tmp_path / "none" if reason == "no library" else library
    done = crossbind("search", *arguments, "--library", place)
    assert done.returncode == 2, done.stdout
    assert reason in done.stderr


def test_checks_backs_up_and_restores(library: Path, tmp_path: Path) -> None:
    done = crossbind("check", library)
    assert done.returncode == 0 and "no findings" in done.stdout
    assert crossbind("backup", library, tmp_path / "copy.tar").stdout.startswith(f"{library} -> ")
    done = crossbind("backup", tmp_path / "again", tmp_path / "copy.tar", "--restore")
    assert done.returncode == 0, done.stderr
    report = json.loads(crossbind("check", tmp_path / "again", "--json").stdout)
    assert report["whole"] and report["looked_at"]["files"] == 4
    with sqlite3.connect(tmp_path / "again" / "catalogue.sqlite") as connection:
        connection.execute("UPDATE vectors SET vector = zeroblob(1536) WHERE segment = 1")
    done = crossbind("search", "red", "--library", tmp_path / "again")
    assert (
        done.returncode == 2
        and "vector 1 does not match its checksum" in done.stderr
        and "`crossbind check" in done.stderr
    )
    done = crossbind("check", tmp_path / "again")
    assert done.returncode == 1 and "with --repair: read again from its file" in done.stdout
    done = crossbind("check", tmp_path / "again", "--repair")
    assert done.returncode == 0 and "repaired: catalogue.sqlite: " in done.stdout
    found = [
        json.loads(crossbind("search", "red", "--library", place, "--json").stdout)
        for place in (library, tmp_path / "again")
    ]
    assert [hit["path"] for hit in found[0]] == [hit["path"] for hit in found[1]]
    for arguments in (("check", tmp_path / "none"), ("backup", tmp_path / "none", tmp_path / "x.tar")):
        done = crossbind(*arguments)
        assert done.returncode == 2 and "no library" in done.stderr
