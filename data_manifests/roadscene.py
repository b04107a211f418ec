"""RoadScene: 221 aligned photographs and thermal pictures of roads (Xu et al., 2020)."""

from __future__ import annotations

from collections.abc import Iterator

from data_manifests import Builder, Download, Split
from data_manifests._pairs import thermal_pairs


def splits(download: Download) -> Iterator[Split]:
    """One manifest: the data set has no official splits."""
    yield Split("", thermal_pairs(download, "crop_LR_visible", "cropinfrared"))


BUILDER = Builder(
    title="RoadScene, aligned visible and infrared pictures.",
    license="not stated; from FLIR video, for research",
    obtain="the repository of Han Xu on GitHub (hanna-xu/RoadScene), downloaded as an archive",
    layout="crop_LR_visible/*.jpg and cropinfrared/*.jpg with the same names",
    splits=splits,
)
