"""MSR-VTT: 10,000 video clips with 20 captions each (Xu et al., 2016)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from data_manifests import Builder, BuildError, Download, Entry, Split

_ANNOTATIONS = ("train_val_videodatainfo.json", "test_videodatainfo.json")
"""The two tables of films and sentences, as published in 2016."""
_FOLDERS = ("TrainValVideo", "TestVideo")
"""The folders of the unpacked films."""
_TEST_1KA = "MSRVTT_JSFUSION_test.csv"
"""The list of the 1,000 test films with one sentence each ("1k-A") on which papers report recall."""


def splits(download: Download) -> Iterator[Split]:
    """train, validate and test as published (6,513, 497, 2,990), and test-1ka: the 1,000 pairs that papers report.

    A clip is also paired as audio where its file has a sound track.
    """
    captions: dict[str, list[str]] = {}
    members: dict[str, list[str]] = {}
    for name in filter(lambda name: download.has(name, "annotation"), _ANNOTATIONS):
        table = download.json(name)
        try:
            for video in table["videos"]:
                members.setdefault(str(video["split"]), []).append(str(video["video_id"]))
            for sentence in table["sentences"]:
                captions.setdefault(str(sentence["video_id"]), []).append(str(sentence["caption"]).strip())
        except (KeyError, TypeError) as error:
            raise BuildError(f"{name}: expected lists `videos` and `sentences`, without {error}") from None
    for split, videos in members.items():
        pairs = ((video, captions.get(video, [])) for video in videos)
        yield Split(split, _events(download, pairs))
    if download.has(_TEST_1KA, "annotation"):
        rows = download.table(_TEST_1KA, ("video_id", "sentence"))
        yield Split("test-1ka", _events(download, ((row["video_id"], [row["sentence"].strip()]) for row in rows)))


def _events(download: Download, pairs: Iterator[tuple[str, list[str]]]) -> Iterator[Entry]:
    for video, texts in pairs:
        places = [f"{folder}/{video}.mp4" for folder in _FOLDERS if (download.path / folder / f"{video}.mp4").is_file()]
        if not places or not download.has(places[0], "video"):
            if not places:
                download.lacks("video", f"{video}.mp4")
            continue
        event: Entry = {"id": video, "video": {"path": places[0]}}
        if _has_sound(download.path / places[0]):
            event["audio"] = {"path": places[0]}
        if texts := list(filter(None, texts)):
            event["text"] = texts
        else:
            download.lacks("caption", video)
        yield event


def _has_sound(path: Path) -> bool:
    """Whether an MP4 has a sound track: a handler box of type `soun` within the box `moov` (ISO/IEC 14496-12)."""
    with path.open("rb") as file:
        while len(head := file.read(8)) == 8:
            size, kind = int.from_bytes(head[:4], "big"), head[4:]
            body = int.from_bytes(file.read(8), "big") - 16 if size == 1 else size - 8
            if kind == b"moov":
                content = file.read(body) if size else file.read()
                # After the type of a handler box: version and flags (4 bytes), 4 bytes unused, the handler's type.
                return re.search(rb"hdlr.{8}soun", content, re.DOTALL) is not None
            if body < 0:
                return False
            file.seek(body, 1)
    return False


BUILDER = Builder(
    title="MSR-VTT.",
    license="not stated with the data; released by Microsoft Research for research",
    obtain="the MSR-VTT challenge of Microsoft Research (its download page is closed at times; the same archives are "
    f"mirrored by universities); {_TEST_1KA} from the repositories that report 1K-A, such as collaborative-experts",
    layout=f"{', '.join(_ANNOTATIONS)}, {_TEST_1KA} and the unpacked videos in {' and '.join(_FOLDERS)}",
    splits=splits,
)
