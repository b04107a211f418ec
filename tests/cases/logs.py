"""Cases of motion logs: each writer's log must mean the same motion as a plain table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.cases.motion import LOGS, PLAIN, motion, table
from tests.cases.motion_kinds import KINDS, WITHOUT_ROTATION
from tests.cases.table import case, means, written


def _plain(folder: Path, values: np.ndarray, name: str) -> Path:
    header = PLAIN.replace("acc_", "acceleration_m_s2_")
    header = "time [s]," + ",".join(f"acc_{axis} [m/s2]" for axis in "xyz")
    header += "," + ",".join(f"gyro_{axis} [rad/s]" for axis in "xyz")
    return written(folder, name, table(header, [np.arange(len(values)) / 100, *values.T]))


def _log(write: Callable[..., dict[str, str | bytes]], has_rotation: bool) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        time_s = np.arange(600) / 100
        values = motion(time_s)
        files = [written(folder, name, content) for name, content in write(time_s, values).items()]
        wanted = values * ([1] * 3 + [has_rotation] * 3)
        other = np.roll(values, 1, axis=1)
        means(files[0], _plain(folder / "plain", wanted, "a.csv"), _plain(folder / "plain", other, "b.csv"), "imu")

    return run


for _name, _write in {**LOGS, **KINDS, **WITHOUT_ROTATION}.items():
    case("5", _name)(_log(_write, _name not in WITHOUT_ROTATION))
