"""SisFall: 4,505 recordings of 19 movements and 15 falls of 38 people, at the waist (Sucerquia et al., 2017)."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from data_manifests import Builder, Download, Entry, Split
from data_manifests.shared.imu import write_npy

_MOVEMENTS = {  # Readme.txt of the data set
    "D01": "walking slowly",
    "D02": "walking quickly",
    "D03": "jogging slowly",
    "D04": "jogging quickly",
    "D05": "walking upstairs and downstairs slowly",
    "D06": "walking upstairs and downstairs quickly",
    "D07": "slowly sit in a half height chair, wait a moment, and up slowly",
    "D08": "quickly sit in a half height chair, wait a moment, and up quickly",
    "D09": "slowly sit in a low height chair, wait a moment, and up slowly",
    "D10": "quickly sit in a low height chair, wait a moment, and up quickly",
    "D11": "sitting a moment, trying to get up, and collapse into a chair",
    "D12": "sitting a moment, lying slowly, wait a moment, and sit again",
    "D13": "sitting a moment, lying quickly, wait a moment, and sit again",
    "D14": "being on one's back change to lateral position, wait a moment, and change to one's back",
    "D15": "standing, slowly bending at knees, and getting up",
    "D16": "standing, slowly bending without bending knees, and getting up",
    "D17": "standing, get into a car, remain seated and get out of the car",
    "D18": "stumble while walking",
    "D19": "gently jump without falling (trying to reach a high object)",
    "F01": "fall forward while walking caused by a slip",
    "F02": "fall backward while walking caused by a slip",
    "F03": "lateral fall while walking caused by a slip",
    "F04": "fall forward while walking caused by a trip",
    "F05": "fall forward while jogging caused by a trip",
    "F06": "vertical fall while walking caused by fainting",
    "F07": "fall while walking, with use of hands in a table to dampen fall, caused by fainting",
    "F08": "fall forward when trying to get up",
    "F09": "lateral fall when trying to get up",
    "F10": "fall forward when trying to sit down",
    "F11": "fall backward when trying to sit down",
    "F12": "lateral fall when trying to sit down",
    "F13": "fall forward while sitting, caused by fainting or falling asleep",
    "F14": "fall backward while sitting, caused by fainting or falling asleep",
    "F15": "lateral fall while sitting, caused by fainting or falling asleep",
}
_FILE = re.compile(r"([DF]\d\d)_(S[AE]\d\d)_R\d\d")
"""`D01_SA01_R01`: activity (D) or fall (F), person (SA: adult, SE: elderly), repetition."""
_RATE_HZ = 200.0
"""The rate of the recorder (README of the data set)."""
_G_PER_BIT, _DEG_S_PER_BIT = 2 * 16 / 2**13, 2 * 2000 / 2**16  # ADXL345 and ITG3200, Readme.txt
_TESTED = 4
"""People whose number divides by this are for the test; the data set has no official splits."""


def splits(download: Download) -> Iterator[Split]:
    """train and test by person (the group): test are those whose number divides by 4. Written as .npy at 200 Hz.

    Of the two accelerometers the ADXL345 is taken.
    """
    base = "SisFall_dataset" if (download.path / "SisFall_dataset").is_dir() else "."
    files = sorted(path for path in (download.path / base).glob("S[AE]*/*.txt") if _FILE.fullmatch(path.stem))
    if not files:
        download.lacks("recording", "SisFall_dataset/SA01/D01_SA01_R01.txt")
    names = [path.relative_to(download.path).as_posix() for path in files]
    for split, tested in (("train", False), ("test", True)):
        chosen = [name for name in names if (int(name.split("/")[-2][2:]) % _TESTED == 0) is tested]
        yield Split(split, _events(download, chosen), list(_MOVEMENTS.values()), ("{}",), base=download.made)


def _events(download: Download, names: list[str]) -> Iterator[Entry]:
    for name in names:
        stem = name.split("/")[-1].removesuffix(".txt")
        named = _FILE.fullmatch(stem)
        if named is None or named[1] not in _MOVEMENTS or not download.has(name, "recording"):
            continue
        try:
            text = (download.path / name).read_text(encoding="ascii").replace(";", "\n")
            rows = np.array([line.split(",") for line in text.splitlines() if line.strip()], dtype=np.float64)
            accelerations, rotations, _ = np.hsplit(rows, 3)  # of both sensors, and of the second accelerometer
            values = np.column_stack([accelerations * _G_PER_BIT, rotations * _DEG_S_PER_BIT])
        except ValueError:
            download.lacks("readable recording", name)
            continue
        write_npy(download.made / f"{stem}.npy", values)
        label = _MOVEMENTS[named[1]]
        yield {
            "id": stem,
            "imu": {
                "path": f"{stem}.npy",
                "rate_hz": _RATE_HZ,
                "acceleration_unit": "g",
                "rotation_unit": "deg/s",
            },
            "text": label,
            "labels": [label],
            "group": named[2],
        }


BUILDER = Builder(
    title="SisFall, motion at the waist.",
    license="not stated; open to research",
    obtain="the SisFall page of SISTEMIC, Universidad de Antioquia: SisFall_dataset.zip",
    layout="SisFall_dataset/{SA,SE}NN/{D,F}NN_PERSON_RNN.txt",
    splits=splits,
)
