"""Data sets of installed packages: the entry points `crossbind.datasets`, with made-up packages on the path."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import data_manifests
from data_manifests import BuildError

MODULE = """
from data_manifests import Builder, Split
def splits(download):
    yield Split("", [{"id": "1", "image": {"path": "a.png"}, "text": "a"}])
BUILDER = Builder(title="Mine.", license="CC0-1.0", obtain="draw it", layout="a.png", splits=splits)
OTHER = 3
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "my_sets.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    data_manifests.builders.cache_clear()
    yield tmp_path
    data_manifests.builders.cache_clear()


def install(site: Path, package: str, line: str) -> None:
    """A package's metadata, as an installer writes it."""
    folder = site / f"{package}-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[crossbind.datasets]\n{line}\n")


def test_a_package_adds_a_data_set(site: Path) -> None:
    install(site, "mine", "my-set = my_sets:BUILDER")
    ours = [name for name in data_manifests.builders() if name != "my-set"]
    assert "nyud" in ours
    assert list(data_manifests.builders()) == sorted([*ours, "my-set"])
    report = data_manifests.build("my-set", site, site / "out.jsonl")
    header = json.loads(report.written[0].read_text().splitlines()[0])
    assert (header["name"], header["license"]) == ("my-set", "CC0-1.0")


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ("nyud = my_sets:BUILDER", None, ["data_manifests.datasets.nyud", "my_sets:BUILDER of package one"]),
        ("a = my_sets:BUILDER", "a = my_sets:OTHER", ["BUILDER of package one", "OTHER of package two"]),
        ("a = my_sets:OTHER", None, ["expected a Builder at my_sets:OTHER of package one, got int"]),
    ],
)
def test_a_clash_names_both(site: Path, first: str, second: str | None, names: list[str]) -> None:
    install(site, "one", first)
    if second:
        install(site, "two", second)
    with pytest.raises(BuildError) as caught:
        data_manifests.builders()
    assert all(name in str(caught.value) for name in names), str(caught.value)


def test_doctor_shows_it(site: Path) -> None:
    from serve.cli import doctor

    install(site, "mine", "my-set = my_sets:BUILDER")
    assert "my-set (my_sets:BUILDER)" in doctor._datasets()
