"""MSRS: 1,444 aligned photographs and thermal pictures of roads by day and night (Tang et al., 2022)."""

from __future__ import annotations

from collections.abc import Iterator

from data_manifests import Builder, Download, Split
from data_manifests._pairs import thermal_pairs


def splits(download: Download) -> Iterator[Split]:
    """train (1,083) and test (361), as published."""
    for split in ("train", "test"):
        yield Split(split, thermal_pairs(download, f"{split}/vi", f"{split}/ir"))


BUILDER = Builder(
    title="MSRS, aligned visible and infrared pictures.",
    license="not stated; made from MFNet, for research",
    obtain="the repository of Linfeng Tang on GitHub (Linfeng-Tang/MSRS), downloaded as an archive",
    layout="{train,test}/vi/*.png and {train,test}/ir/*.png with the same names",
    splits=splits,
)
