"""Motion logs as phone apps, sensors and data sets write them: all of them mean the same motion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from pyarrow import Table, parquet

from preprocess.decoding.pool import DecodePool
from preprocess.decoding.protocol import read_here, with_parts
from preprocess.readers.imu import ImuConfig, ImuSeries, read, read_imu
from preprocess.readers.imu.layouts import layouts, recording_of
from preprocess.source import Limits, MediaError, Source

LIMITS = Limits()
G = 9.80665
EPOCH_S = 1_700_000_000
START = datetime(2026, 1, 2, 23, 59, 58)
RATES = (50.0, 200.0)


def motion(time_s: np.ndarray) -> np.ndarray:
    """(T, 6) in m/s2 and rad/s: a device that lies flat and is shaken, each channel in its own way."""
    channel = np.arange(6)
    shaken = np.sin(2 * np.pi * (0.5 + channel / 3) * time_s[:, None] + channel)
    return shaken * [2.0, 1.5, 1.0, 0.9, 0.6, 0.4] + [0, 0, G, 0.1, -0.2, 0.3]


def table(
    header: str | Sequence[str],
    columns: Sequence[Sequence[object]],
    mark: str = ",",
    decimal: str = ".",
    end: str = "\n",
    above: Sequence[str] = (),
    close: str = "",
) -> str:
    """Lines of a table; numbers with six decimals."""

    def cell(value: object) -> str:
        return f"{value:.6f}".replace(".", decimal) if isinstance(value, float) else str(value)

    rows = [mark.join(map(cell, row)) + close for row in zip(*columns, strict=True)]
    head = [header] if isinstance(header, str) else list(header)
    return end.join([*above, *(line for line in head if line), *rows]) + end


def clock(time_s: np.ndarray, form: Callable[[datetime], str]) -> list[str]:
    return [form(START + timedelta(microseconds=round(second * 1e6))) for second in time_s]


def milli(moment: datetime) -> str:
    return f"{moment.microsecond // 1000:03d}"


def sensor_logger(t: np.ndarray, m: np.ndarray) -> dict[str, str | bytes]:
    times = [[EPOCH_S * 10**9 + round(second * 1e9) for second in t], list(t)]
    header = "time,seconds_elapsed,z,y,x"
    linear = m - [0, 0, G, 0, 0, 0]
    return {
        "Accelerometer.csv": table(header, [*times, *linear[:, [2, 1, 0]].T]),
        "Gyroscope.csv": table(header, [*times, *m[:, [5, 4, 3]].T]),
    }


def tilted_sensor_logger(t: np.ndarray, m: np.ndarray) -> dict[str, str | bytes]:
    gravity = np.stack([0.6 * G * np.sin(t), 0.8 * G * np.ones_like(t), 0.6 * G * np.cos(t)], axis=1)
    header = "time,seconds_elapsed,z,y,x"
    files = {"Accelerometer": m[:, :3] - gravity, "Gravity": gravity, "Gyroscope": m[:, 3:]}
    times = [[EPOCH_S * 10**9 + round(second * 1e9) for second in t], list(t)]
    return {f"{name}.csv": table(header, [*times, *values[:, ::-1].T]) for name, values in files.items()}


def sensorlog(t: np.ndarray, m: np.ndarray, mark: str = ",") -> dict[str, str | bytes]:
    titles = ["loggingTime(txt)", "loggingSample(N)", "accelerometerTimestamp_sinceReboot(s)"]
    titles += [f"accelerometerAcceleration{axis}(G)" for axis in "XYZ"] + ["gyroTimestamp_sinceReboot(s)"]
    titles += [f"gyroRotation{axis}(rad/s)" for axis in "XYZ"] + ["motionYaw(rad)"]
    text = clock(t, lambda moment: moment.strftime("%Y-%m-%d %H:%M:%S.") + milli(moment) + " +0100")
    columns = [text, range(len(t)), t + 1000, *(m[:, :3] / G).T, t + 1000, *m[:, 3:].T, np.zeros_like(t)]
    return {"log.csv": table(mark.join(titles), columns, mark)}


def sensorlog_device_motion(t: np.ndarray, m: np.ndarray) -> dict[str, str | bytes]:
    titles = ["loggingTime(txt)", *(f"motionRotationRate{axis}(rad/s)" for axis in "XYZ")]
    titles += [f"motionUserAcceleration{axis}(G)" for axis in "XYZ"] + [f"motionGravity{axis}(G)" for axis in "XYZ"]
    text = clock(t, lambda moment: moment.strftime("%Y-%m-%d %H:%M:%S.") + milli(moment) + " +0100")
    gravity = np.tile([0.6, 0.0, 0.8], (len(t), 1))
    return {"w.csv": table(",".join(titles), [text, *m[:, 3:].T, *(m[:, :3] / G - gravity).T, *gravity.T])}


PHYPHOX = {
    "English": ("Time (s)", "Acceleration {} (m/s^2)", "Gyroscope {} (rad/s)", ",", "."),
    "German": ("Zeit (s)", "Beschleunigung {} (m/s^2)", "Gyroskop {} (rad/s)", ";", ","),
    "French": ("Temps (s)", "Accélération {} (m/s²)", "Gyroscope {} (rad/s)", "\t", ","),
    "Spanish": ("Tiempo (s)", "Aceleración {} (m/s^2)", "Giroscopio {} (rad/s)", ";", "."),
    "Italian": ("Tempo (s)", "Accelerazione {} (m/s^2)", "Giroscopio {} (rad/s)", ";", ","),
    "Portuguese": ("Tempo (s)", "Aceleração {} (m/s^2)", "Giroscópio {} (rad/s)", ";", ","),
    "Dutch": ("Tijd (s)", "Versnelling {} (m/s^2)", "Gyroscoop {} (rad/s)", ";", ","),
    "Polish": ("Czas (s)", "Przyspieszenie {} (m/s^2)", "Żyroskop {} (rad/s)", "\t", "."),
    "Czech": ("Čas (s)", "Zrychlení {} (m/s^2)", "Gyroskop {} (rad/s)", ";", ","),
    "Turkish": ("Zaman (s)", "İvme {} (m/s^2)", "Jiroskop {} (rad/s)", ",", "."),
    "Russian": ("Время (с)", "Ускорение {} (м/с²)", "Гироскоп {} (рад/с)", ";", ","),  # noqa: RUF001
    "Chinese": ("时间 (s)", "加速度 {} (m/s^2)", "陀螺仪 {} (rad/s)", ",", "."),
    "Japanese": ("時間 (s)", "加速度 {} (m/s^2)", "ジャイロスコープ {} (rad/s)", "\t", "."),
}


def phyphox(language: str) -> Callable[[np.ndarray, np.ndarray], dict[str, str | bytes]]:
    time, acceleration, rotation, mark, decimal = PHYPHOX[language]

    def write(t: np.ndarray, m: np.ndarray) -> dict[str, str | bytes]:
        titles = [time, *map(acceleration.format, "xyz"), "Abs (m/s^2)", *map(rotation.format, "xyz")]
        columns = [t, *m[:, :3].T, np.linalg.norm(m[:, :3], axis=1), *m[:, 3:].T]
        return {"Raw Data.csv": table(mark.join(f'"{title}"' for title in titles), columns, mark, decimal, "\r\n")}

    return write


def phyphox_linear(t: np.ndarray, m: np.ndarray) -> dict[str, str | bytes]:
    titles = ["Zeit (s)", *(f"Lineare Beschleunigung {axis} (m/s^2)" for axis in "xyz")]
    titles += [f"Gyroskop {axis} (rad/s)" for axis in "xyz"]
    return {"linear.csv": table(";".join(titles), [t, *(m - [0, 0, G, 0, 0, 0]).T], ";", ",")}


def androsensor(t: np.ndarray, m: np.ndarray) -> dict[str, str | bytes]:
    titles = [f"ACCELEROMETER {axis} (m/s²)" for axis in "XYZ"] + [f"GRAVITY {axis} (m/s²)" for axis in "XYZ"]
    titles += [f"LINEAR ACCELERATION {axis} (m/s²)" for axis in "XYZ"] + [f"GYROSCOPE {axis} (rad/s)" for axis in "XYZ"]
    titles += ["Time since start in ms ", "YYYY-MO-DD HH-MI-SS_SSS"]
    gravity = np.tile([0, 0, G], (len(t), 1))
    text = clock(t, lambda moment: moment.strftime("%Y-%m-%d %H:%M:%S_") + milli(moment))
    milliseconds = [round(1000 * second) for second in t]
    columns = [*m[:, :3].T, *gravity.T, *(m[:, :3] - gravity).T, *m[:, 3:].T, milliseconds, text]
    return {"Sensor_record.csv": table(";".join(titles), columns, ";", ".", "\r\n", ["sep=;"])}


def physics_toolbox(t: np.ndarray, m: np.ndarray) -> dict[str, str | bytes]:
    return {"g.csv": table("time,gFx,gFy,gFz,TgF,wx,wy,wz,", [t, *(m[:, :3] / G).T, t, *m[:, 3:].T], close=",")}


def physics_toolbox_clock(t: np.ndarray, m: np.ndarray) -> dict[str, str | bytes]:
    text = clock(t, lambda moment: moment.strftime("%H:%M:%S:") + milli(moment))  # goes past midnight
    columns = [text, *(m[:, :3] / G).T, *m[:, 3:].T]
    return {"g.csv": table("time;gFx;gFy;gFz;wx;wy;wz", columns, ";", ",", "\r\n")}


def physics_toolbox_linear(t: np.ndarray, m: np.ndarray) -> dict[str, str | bytes]:
    return {"a.csv": table("time,ax,ay,az,aT,wx,wy,wz", [t, *(m[:, :3] - [0, 0, G]).T, t, *m[:, 3:].T])}


def euroc(t: np.ndarray, m: np.ndarray) -> dict[str, str | bytes]:
    titles = [f"w_RS_S_{axis} [rad s^-1]" for axis in "xyz"] + [f"a_RS_S_{axis} [m s^-2]" for axis in "xyz"]
    stamps = [EPOCH_S * 10**9 + round(second * 1e9) for second in t]
    return {"data.csv": table(",".join(["#timestamp [ns]", *titles]), [stamps, *m[:, 3:].T, *m[:, :3].T])}


def rostopic(t: np.ndarray, m: np.ndarray) -> dict[str, str | bytes]:
    stamps = [EPOCH_S * 10**9 + round(second * 1e9) for second in t]
    titles = ["%time", "field.header.seq", "field.header.stamp", "field.header.frame_id", "field.orientation.x"]
    titles += [f"field.angular_velocity.{axis}" for axis in "xyz"]
    titles += [f"field.angular_velocity_covariance{i}" for i in range(9)]
    titles += [f"field.linear_acceleration.{axis}" for axis in "xyz"]
    jitter = [stamp + 3_000_000 * (i % 3) for i, stamp in enumerate(stamps)]  # it arrives late, and unevenly so
    columns = [jitter, range(len(t)), stamps, ["imu"] * len(t), t * 0, *m[:, 3:].T, *[t * 0] * 9, *m[:, :3].T]
    return {"imu.csv": table(",".join(titles), columns)}


def plotjuggler(t: np.ndarray, m: np.ndarray) -> dict[str, str | bytes]:
    titles = ["__time", *(f"/imu/data/angular_velocity/{axis}" for axis in "xyz"), "/imu/data/header/stamp"]
    titles += [f"/imu/data/linear_acceleration/{axis}" for axis in "xyz"]
    return {"pj.csv": table(",".join(titles), [t + EPOCH_S, *m[:, 3:].T, t + EPOCH_S, *m[:, :3].T])}


def ros2_echo(t: np.ndarray, m: np.ndarray) -> dict[str, str | bytes]:
    seconds = [EPOCH_S + int(second) for second in t]
    nanoseconds = [round(second % 1 * 1e9) for second in t]
    zero = t * 0
    columns = [seconds, nanoseconds, ["imu"] * len(t), *[zero] * 13, *m[:, 3:].T, *[zero] * 9, *m[:, :3].T, *[zero] * 9]
    return {"echo.csv": table("", columns)}


def xsens(ticks: float, rate: bool) -> Callable[[np.ndarray, np.ndarray], dict[str, str | bytes]]:
    def write(t: np.ndarray, m: np.ndarray) -> dict[str, str | bytes]:
        above = ["// Start Time: Unknown", f"// Sample rate: {1 / t[1]:.1f}Hz"] if rate else []
        fine = [round(second / ticks) for second in t]
        header = "PacketCounter,SampleTimeFine,Acc_X,Acc_Y,Acc_Z,Gyr_X,Gyr_Y,Gyr_Z"
        return {"mt.csv": table(header, [range(len(t)), fine, *m.T], above=above)}

    return write


def xsens_without_times(t: np.ndarray, m: np.ndarray) -> dict[str, str | bytes]:
    above = [f"// Update Rate: {1 / t[1]:.1f}Hz", "// Firmware Version: 1.0"]
    return {
        "mt.csv": table(
            "PacketCounter\tAcc_X\tAcc_Y\tAcc_Z\tGyr_X\tGyr_Y\tGyr_Z", [range(len(t)), *m.T], "\t", above=above
        )
    }


def shimmer(t: np.ndarray, m: np.ndarray) -> dict[str, str | bytes]:
    titles = ["Timestamp_Unix_CAL", *(f"Accel_LN_{axis}_CAL" for axis in "XYZ"), "Accel_WR_X_CAL"]
    titles += [f"Gyro_{axis}_CAL" for axis in "XYZ"]
    units = ["ms", *["m/(s^2)"] * 4, *["deg/s"] * 3]
    header = ["\t".join(f"Shimmer_B663_{title}" for title in titles), "\t".join(units)]
    columns = [1000 * (t + EPOCH_S), *m[:, :3].T, t, *np.degrees(m[:, 3:]).T]
    return {"shimmer.csv": table(header, columns, "\t", ".", "\r\n", ['"sep=\t"'])}


def shimmer_of_four_rows(t: np.ndarray, m: np.ndarray) -> dict[str, str | bytes]:
    titles = ["Timestamp", *(f"Low Noise Accelerometer {axis}" for axis in "XYZ")]
    titles += [f"Gyroscope {axis}" for axis in "XYZ"]
    units = ["mSecs", *["m/(sec^2)*"] * 3, *["deg/sec*"] * 3]
    header = [",".join(line) for line in (["Shimmer"] * 7, titles, ["CAL"] * 7, units)]
    return {"s.csv": table(header, [1000 * t, *m[:, :3].T, *np.degrees(m[:, 3:]).T])}


def axivity(header: bool) -> Callable[[np.ndarray, np.ndarray], dict[str, str | bytes]]:
    def write(t: np.ndarray, m: np.ndarray) -> dict[str, str | bytes]:
        text = clock(t, lambda moment: moment.strftime("%Y-%m-%d %H:%M:%S.") + milli(moment))
        titles = "Time,Accel-X (g), Accel-Y (g), Accel-Z (g), Gyro-X (d/s), Gyro-Y (d/s), Gyro-Z (d/s)"
        return {"ax6.csv": table(titles if header else "", [text, *(m[:, :3] / G).T, *np.degrees(m[:, 3:]).T])}

    return write


def actigraph(t: np.ndarray, m: np.ndarray) -> dict[str, str | bytes]:
    above = [
        f"--------- Data File Created By ActiGraph GT9X date format M/d/yyyy at {1 / t[1]:.0f} Hz  Filter Normal",
        "Serial Number: TAS1D48140206", "Start Time 23:59:58", "Start Date 1/2/2026",
        "Epoch Period (hh:mm:ss) 00:00:00", "Download Time 12:00:00",
        "Download Date 1/3/2026", "Current Memory Address: 0",
        "Current Battery Voltage: 4.21     Mode = 12", "--------------------------------------------------",
    ]  # fmt: skip
    text = clock(t, lambda moment: f"{moment.month}/{moment.day}/{moment.year} {moment:%H:%M:%S}." + milli(moment))
    header = "Timestamp,Accelerometer X,Accelerometer Y,Accelerometer Z,Gyroscope X,Gyroscope Y,Gyroscope Z"
    return {"RAW.csv": table(header, [text, *(m[:, :3] / G).T, *np.degrees(m[:, 3:]).T], above=above)}


def witmotion(t: np.ndarray, m: np.ndarray) -> dict[str, str | bytes]:
    text = clock(t, lambda moment: moment.strftime("%Y-%m-%d %H:%M:%S:") + milli(moment))
    titles = ["time", "DeviceName", *(f"Acc{axis}(g)" for axis in "XYZ"), *(f"As{axis}(°/s)" for axis in "XYZ")]
    titles += [f"Angle{axis}(°)" for axis in "XYZ"]
    columns = [text, ["WT901"] * len(t), *(m[:, :3] / G).T, *np.degrees(m[:, 3:]).T, t, t, t]
    return {"wit.csv": table("\t".join(titles), columns, "\t", ".", "\r\n", ["StartTime: 2026-01-02 23:59:58.000"])}


def one_sensor_a_file(t: np.ndarray, m: np.ndarray) -> dict[str, str | bytes]:
    header = "Index,Arrival_Time,Creation_Time,x,y,z,User"
    later = t + 0.003  # each sensor has times of its own
    rotation = motion(later)[:, 3:]
    files = {}
    for name, moments, values in (("Phones_accelerometer", t, m[:, :3]), ("Phones_gyroscope", later, rotation)):
        stamps = [EPOCH_S * 10**9 + round(second * 1e9) for second in moments]
        columns = [range(len(t)), stamps, stamps, *values.T, ["a"] * len(t)]
        files[f"{name}.csv"] = table(header, columns)
    return files


PLAIN = "time,acc_x,acc_y,acc_z,gyro_x,gyro_y,gyro_z"


def plain(**how: object) -> Callable[[np.ndarray, np.ndarray], dict[str, str | bytes]]:
    return lambda t, m: {"plain.csv": table(PLAIN, [t, *m.T], **how)}


def quoted(column: np.ndarray) -> list[str]:
    return [f'"{value:.6f}"'.replace(".", ",") for value in column]


def encoded(encoding: str) -> Callable[[np.ndarray, np.ndarray], dict[str, str | bytes]]:
    header = "time [s]\tacc_x (m/s²)\tacc_y (m/s²)\tacc_z (m/s²)\tgyro_x (°/s)\tgyro_y (°/s)\tgyro_z (°/s)"
    return lambda t, m: {
        "plain.csv": table(header, [t, *m[:, :3].T, *np.degrees(m[:, 3:]).T], "\t", ".", "\r\n").encode(encoding)
    }


def shuffled(t: np.ndarray, m: np.ndarray) -> dict[str, str | bytes]:
    order = [3, 0, 6, 2, 1, 5, 4]
    titles = PLAIN.split(",")
    columns = [t, *m.T]
    return {"plain.csv": table(";".join(titles[i] for i in order), [columns[i] for i in order], ";", ",", "\r\n")}


def in_g_and_degrees(t: np.ndarray, m: np.ndarray) -> dict[str, str | bytes]:
    return {"plain.csv": table(PLAIN, [t, *(m[:, :3] / G).T, *np.degrees(m[:, 3:]).T])}


def with_a_row_of_units(t: np.ndarray, m: np.ndarray) -> dict[str, str | bytes]:
    header = [PLAIN, "[ms],[g],[g],[g],[deg/s],[deg/s],[deg/s]"]
    return {"plain.csv": table(header, [1000 * t, *(m[:, :3] / G).T, *np.degrees(m[:, 3:]).T], above=["# a walk", ""])}


LOGS: dict[str, Callable[[np.ndarray, np.ndarray], dict[str, str | bytes]]] = {
    "Sensor Logger": sensor_logger,
    "Sensor Logger with gravity": tilted_sensor_logger,
    "SensorLog": sensorlog,
    "SensorLog, semicolons": lambda t, m: sensorlog(t, m, ";"),
    "SensorLog, device motion": sensorlog_device_motion,
    **{f"phyphox, {language}": phyphox(language) for language in PHYPHOX},
    "phyphox, linear": phyphox_linear,
    "AndroSensor": androsensor,
    "Physics Toolbox": physics_toolbox,
    "Physics Toolbox, clock": physics_toolbox_clock,
    "Physics Toolbox, linear accelerometer": physics_toolbox_linear,
    "EuRoC": euroc,
    "ROS, rostopic": rostopic,
    "ROS, PlotJuggler": plotjuggler,
    "ROS 2 topic echo": ros2_echo,
    "Xsens": xsens(1e-4, True),
    "Xsens, DOT": xsens(1e-6, False),
    "Xsens, no times": xsens_without_times,
    "Shimmer": shimmer,
    "Shimmer, four rows": shimmer_of_four_rows,
    "Axivity": axivity(True),
    "Axivity without a header": axivity(False),
    "ActiGraph": actigraph,
    "WitMotion": witmotion,
    "one sensor a file": one_sensor_a_file,
    "any": plain(),
    "any, byte order mark": lambda t, m: {"plain.csv": b"\xef\xbb\xbf" + table(PLAIN, [t, *m.T]).encode()},
    "any, Windows line ends": plain(end="\r\n"),
    "any, old Macintosh line ends": plain(end="\r"),
    "any, shuffled, decimal commas": shuffled,
    "any, units by magnitude": in_g_and_degrees,
    "any, a row of units": with_a_row_of_units,
    "any, quoted decimal commas": lambda t, m: {"plain.csv": table(PLAIN, [quoted(column) for column in (t, *m.T)])},
    "any, dates with slashes": lambda t, m: {
        "plain.csv": table(PLAIN, [clock(t, lambda at: at.strftime("%Y/%m/%d/%H:%M:%S.%f")), *m.T])
    },
    "any, dates with a zone": lambda t, m: {
        "plain.csv": table(PLAIN, [clock(t, lambda at: at.strftime("%Y-%m-%d %H:%M:%S.%f") + " +0530"), *m.T])
    },
    "any, UTF-16": encoded("utf-16"),
    "any, UTF-16 without a mark": encoded("utf-16-be"),
    "any, Latin-1": encoded("latin-1"),
}


def read_log(folder: Path, files: dict[str, str | bytes]) -> ImuSeries:
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    path = folder / next(iter(files))
    return read_imu(with_parts(read, Source(path, str(path))), LIMITS)


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("log", LOGS)
def test_every_log_means_the_same_motion(tmp_path: Path, log: str, rate_hz: float) -> None:
    time_s = np.arange(round(6 * rate_hz)) / rate_hz
    series = read_log(tmp_path, LOGS[log](time_s, motion(time_s)))
    np.testing.assert_allclose(series.time_s, time_s, atol=1e-3)
    inner = slice(1, -1)  # what another sensor has measured begins and ends at other moments
    np.testing.assert_allclose(series.values[inner], motion(time_s)[inner], atol=3e-3)
    assert ("without gravity" in str(series.notes)) == (log in GRAVITY_REMOVED)


GRAVITY_REMOVED = ("Sensor Logger", "phyphox, linear", "Physics Toolbox, linear accelerometer")


def test_every_layout_is_tried() -> None:
    written = {*LOGS, "WISDM", "Axivity without a header or gyroscope", "ROS, rostopic"}
    assert [row.name for row in layouts() if not any(log.startswith(row.name) for log in written)] == []


def test_the_page_on_motion_logs_has_every_layout() -> None:
    page = (Path(__file__).parents[3] / "docs/pages/reference/motion-logs.md").read_text()
    assert [row.name for row in layouts() if f"| {row.name} | {row.about} |" not in page] == []


@pytest.mark.parametrize(("log", "note"), [
    ("Sensor Logger", "9.81 m/s2 were added along z"),
    ("Sensor Logger", "joined with Gyroscope.csv"),
    ("Sensor Logger with gravity", "gravity, recorded apart from the acceleration, was added"),
    ("Physics Toolbox", "taken as g, as Physics Toolbox writes it"),
    ("Xsens, no times", "it has no time column: 50 Hz, as its first lines say"),
    ("any, units by magnitude", "lasting magnitude of 1.0"),
    ("any, units by magnitude", "taken as deg/s"),
    ("any, UTF-16", "its text is UTF-16"),
    ("any, Latin-1", "its text is Windows-1252 or Latin-1"),
])  # fmt: skip
def test_what_was_assumed_is_said(tmp_path: Path, log: str, note: str) -> None:
    time_s = np.arange(300) / 50
    notes = read_log(tmp_path, LOGS[log](time_s, motion(time_s))).notes
    assert any(note in entry for entry in notes), notes


@pytest.mark.parametrize(("name", "fields"), [
    ("wisdm.csv", lambda t, m: [[33] * len(t), ["Jogging"] * len(t), [49105962326000 + round(s * 1e9) for s in t]]),
    ("ax3.csv", lambda t, m: [clock(t, lambda moment: moment.strftime("%Y-%m-%d %H:%M:%S.") + milli(moment))]),
])  # fmt: skip
def test_rows_without_a_header_or_a_gyroscope(tmp_path: Path, name: str, fields: Callable[..., list]) -> None:
    time_s = np.arange(300) / 20
    values = motion(time_s)[:, :3] / (1 if name == "wisdm.csv" else G)
    content = table("", [*fields(time_s, values), *values.T], close=";" if name == "wisdm.csv" else "")
    series = read_log(tmp_path, {name: content})
    np.testing.assert_allclose(series.values[:, :3], motion(time_s)[:, :3], atol=1e-3)
    np.testing.assert_allclose(series.time_s, time_s, atol=1e-3)
    assert "no gyroscope: rotation set to 0" in series.notes


def test_files_of_one_recording_are_found_and_joined_in_the_sandbox(tmp_path: Path) -> None:
    time_s = np.arange(300) / 50
    for name, content in sensor_logger(time_s, motion(time_s)).items():
        (tmp_path / f"Walk_{name}").write_text(str(content))
    acceleration, rotation = (str(tmp_path / f"Walk_{name}.csv") for name in ("Accelerometer", "Gyroscope"))
    assert recording_of(acceleration) == recording_of(rotation) == [acceleration, rotation]
    assert recording_of(tmp_path / "Walk.csv") == [str(tmp_path / "Walk.csv")]
    config = ImuConfig(rate_hz=50.0)
    with DecodePool(workers=1) as pool:
        views = [
            pool.submit(read, Source(Path(path), path), config, LIMITS, "whole").result()[0]
            for path in (acceleration, rotation)
        ]
    for found in views:
        np.testing.assert_allclose(found.views[0], motion(time_s)[:250].T, atol=1e-3)
    # A link, and a file that is none, are nobody's part.
    Path(rotation).rename(tmp_path / "elsewhere.csv")
    Path(rotation).symlink_to(tmp_path / "elsewhere.csv")
    assert recording_of(acceleration) == [acceleration]
    (alone,) = read_here(read, Source(Path(acceleration), acceleration), config, LIMITS, "whole")
    assert "no gyroscope: rotation set to 0" in alone.notes


def test_a_part_that_cannot_be_joined_is_said(tmp_path: Path) -> None:
    time_s = np.arange(300) / 50
    files = sensor_logger(time_s, motion(time_s))
    broken = read_log(tmp_path, {**files, "Gyroscope.csv": "time,seconds_elapsed,z,y,x\n"})
    assert any("Gyroscope.csv beside it was not joined: has no rows" in note for note in broken.notes)
    late = sensor_logger(time_s + 60, motion(time_s))["Gyroscope.csv"]
    assert any("covers other times" in note for note in read_log(tmp_path, {**files, "Gyroscope.csv": late}).notes)
    (tmp_path / "Accelerometer.csv").unlink()
    with pytest.raises(MediaError, match="has no acceleration"):
        read_log(tmp_path, {"Gyroscope.csv": files["Gyroscope.csv"]})


def test_parquet_has_the_same_layouts(tmp_path: Path) -> None:
    time_s = np.arange(300) / 50
    values = motion(time_s)
    stamps = (EPOCH_S * 10**9 + np.round(time_s * 1e9)).astype(np.int64)
    columns = {f"w_RS_S_{axis}": values[:, 3 + i] for i, axis in enumerate("xyz")}
    columns |= {f"a_RS_S_{axis}": values[:, i] for i, axis in enumerate("xyz")}
    path = tmp_path / "imu.parquet"
    parquet.write_table(Table.from_pydict({"timestamp": stamps, **columns}), path)
    np.testing.assert_allclose(read_imu(Source(path, str(path)), LIMITS).values, values, atol=1e-5)


def test_two_recordings_in_one_table_are_refused(tmp_path: Path) -> None:
    time_s = np.arange(300) / 50
    (content,) = plotjuggler(time_s, motion(time_s)).values()
    header, rest = str(content).split("\n", 1)
    other = header.replace("/imu/data", "/other/imu").replace("__time,", "")
    doubled = "\n".join(row + "," + row.split(",", 1)[1] for row in rest.splitlines())
    with pytest.raises(MediaError, match="both look like acc_x"):
        read_log(tmp_path, {"two.csv": f"{header},{other}\n{doubled}\n"})


def test_words_in_place_of_numbers_are_still_refused(tmp_path: Path) -> None:
    rows = "\n".join("a,b,c,d,e,f,g" for _ in range(100))
    with pytest.raises(MediaError, match="not be read as a table of numbers"):
        read_log(tmp_path, {"words.csv": f"{PLAIN}\n{rows}\n"})


def test_a_head_without_end_costs_little(tmp_path: Path) -> None:
    for content in ("# " + "x" * 10**7 + "\n1,2\n", "#\n" * 10**6, "a," * 10**6 + "\n" + "1," * 10**6 + "\n"):
        with pytest.raises(MediaError, match=r"no rows below|has no"):
            read_log(tmp_path, {"long.csv": content})
