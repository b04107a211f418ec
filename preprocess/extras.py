"""Optional packages: where one is missing, one sentence names the extra of `crossbind` that installs it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib import metadata

OWN_PACKAGES = ("preprocess", "bind", "data_manifests", "train", "serve")
"""The packages of the wheel. A module of theirs that is missing is a fault of the installation, not a missing extra."""
_FAISS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs")
"""The distributions that each bring the module `faiss`."""


class MissingExtra(ImportError, ValueError):
    """An optional package that is not installed, or one that is installed twice; the message has the command to run.

    It is a ValueError too, as everything is that a command line reports in one sentence.
    """


@contextlib.contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Around imports: a package that is not installed becomes a MissingExtra that names `what` and the extra.

    with needs("sensors", "an EXR file"):
        import OpenEXR
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if isinstance(error, MissingExtra) or package in OWN_PACKAGES:
            raise
        raise MissingExtra(
            f"{what} needs the package {package}, which is not installed; run: pip install 'crossbind[{extra}]'"
        ) from None


def faiss_packages() -> tuple[str, ...]:
    """Which of faiss-cpu and faiss-gpu are installed: none, one or, by mistake, both."""
    return tuple(name for name in _FAISS if is_installed(name))


def check_faiss() -> None:
    """Raises MissingExtra where both faiss-cpu and faiss-gpu are installed: they overwrite each other's files."""
    if len(faiss_packages()) > 1:
        raise MissingExtra(
            f"{' and '.join(faiss_packages())} are both installed and have overwritten each other's files; run: "
            f"pip uninstall --yes {' '.join(faiss_packages())} && pip install 'crossbind[cpu]' (or 'crossbind[gpu]')"
        )


def is_installed(distribution: str) -> bool:
    """Whether a distribution (the name that pip knows) is installed."""
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
