"""Motion logs of other writers than the layouts' own: other titles, languages, units, clocks, encodings and splits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import numpy as np

from tests.cases.motion import EPOCH_S, PLAIN, G, clock, milli, motion, sensor_logger, table

Files = dict[str, str | bytes]
Writer = Callable[[np.ndarray, np.ndarray], Files]
REST = np.array([0, 0, G, 0, 0, 0])


def titles(*parts: str, mark: str = ",") -> str:
    """Titles; one with {} stands for those of x, y and z."""
    return mark.join(part.format(axis) for part in parts for axis in ("xyz" if "{}" in part else "x"))


def one(
    *parts: str, mark: str = ",", decimal: str = ".", above: tuple[str, ...] = (), encoding: str = "utf-8"
) -> Writer:
    """A file with times in s, acceleration in m/s2 and rotation in rad/s."""
    header = titles(*parts, mark=mark)
    return lambda t, m: {"log.csv": table(header, [t, *m.T], mark, decimal, above=above).encode(encoding)}


def iso(t: np.ndarray) -> list[str]:
    return clock(t, lambda at: at.strftime("%Y-%m-%dT%H:%M:%S.") + milli(at))


def ms(t: np.ndarray, since: int = EPOCH_S) -> list[int]:
    return [since * 1000 + round(second * 1000) for second in t]


def ns(t: np.ndarray) -> list[int]:
    return [EPOCH_S * 10**9 + round(second * 1e9) for second in t]


def deg(m: np.ndarray) -> np.ndarray:
    return np.degrees(m[:, 3:]).T


def g(m: np.ndarray) -> np.ndarray:
    return (m[:, :3] / G).T


def two(first: str, second: str, header: str, other: str = "") -> Writer:
    """Two files of times in s and three axes."""
    return lambda t, m: {
        first: table(header, [t, *m[:, :3].T]),
        second: table(other or header.replace("m/s^2", "rad/s"), [t, *m[:, 3:].T]),
    }


def phyphox_folder(t: np.ndarray, m: np.ndarray) -> Files:
    header = '"Time (s)","X (m/s^2)","Y (m/s^2)","Z (m/s^2)"'
    turns = table(header.replace("m/s^2", "rad/s"), [t, *m[:, 3:].T])
    linear = table(header, [t, *(m - REST)[:, :3].T])
    return {
        "Accelerometer.csv": table(header, [t, *m[:, :3].T]),
        "Gyroscope.csv": turns,
        "Linear Accelerometer.csv": linear,
    }


def phyphox_linear(t: np.ndarray, m: np.ndarray) -> Files:
    files = phyphox_folder(t, m)
    return {name: files[name] for name in ("Linear Accelerometer.csv", "Gyroscope.csv")}


def metabase(t: np.ndarray, m: np.ndarray) -> Files:
    begin, end = "Run_2026-01-02T10.00.00.000_C8B1_", "_100.000Hz_1.5.4.csv"
    head = "epoc (ms),timestamp (+0100),elapsed (s),"
    axes = titles("{}-axis (g)"), titles("{}-axis (deg/s)")
    times = [ms(t), iso(t), t]
    return {
        f"{begin}Accelerometer{end}": table(head + axes[0], [*times, *g(m)]),
        f"{begin}Gyroscope{end}": table(head + axes[1], [*times, *deg(m)]),
    }


def polar(t: np.ndarray, m: np.ndarray) -> Files:
    head = "Phone timestamp;sensor timestamp [ns];"
    return {
        "Polar_Sense_A1_20260102_ACC.csv": table(
            head + titles("{} [mg]", mark=";"), [iso(t), ns(t), *1000 * g(m)], ";"
        ),
        "Polar_Sense_A1_20260102_GYRO.csv": table(head + titles("{} [dps]", mark=";"), [iso(t), ns(t), *deg(m)], ";"),
    }


def matlab(t: np.ndarray, m: np.ndarray) -> Files:
    text = clock(t, lambda at: at.strftime("%d-%m-%Y %H:%M:%S.") + milli(at))
    return {
        "Acceleration.csv": table("Timestamp,X,Y,Z", [text, *m[:, :3].T]),
        "AngularVelocity.csv": table("Timestamp,X,Y,Z", [text, *m[:, 3:].T]),
    }


def dot(t: np.ndarray, m: np.ndarray) -> Files:
    above = [
        "sep=,",
        "DeviceTag: Left",
        "FirmwareVersion: 2.0.0",
        "AppVersion: v2021.0",
        f"OutputRate: {1 / t[1]:.0f}Hz",
    ]
    fine = [3_000_000_000 + round(second * 1e6) for second in t]
    header = titles("PacketCounter", "SampleTimeFine", "Euler_{}", "FreeAcc_{}", "Gyr_{}", "Status")
    columns = [range(len(t)), fine, t, t, t, *(m - REST)[:, :3].T, *deg(m), [0] * len(t)]
    return {"dot.csv": table(header.replace("_x", "_X").replace("_y", "_Y").replace("_z", "_Z"), columns, above=above)}


def core_motion(user: str, gravity: str, turn: str) -> Writer:
    pull = np.array([0.6, 0.0, 0.8])
    header = titles("", "timestamp", "attitude.roll", gravity, turn, user)
    return lambda t, m: {
        "device.csv": table(
            header, [range(len(t)), t, t, *[t * 0 + p for p in pull], *m[:, 3:].T, *(m[:, :3] / G - pull).T]
        )
    }


def linear_and_gravity(t: np.ndarray, m: np.ndarray) -> Files:
    pull = np.array([0.6, 0.0, 0.8]) * G
    header = titles("timestamp_ms", "lin_acc_{}", "grav_{}", "gyro_{}")
    return {"log.csv": table(header, [t * 1000, *(m[:, :3] - pull).T, *[t * 0 + p for p in pull], *m[:, 3:].T])}


def st_sensor(t: np.ndarray, m: np.ndarray) -> Files:
    header = titles("Date", "HostTimestamp", "NodeName", "RawData", "Accelerometer {} [mg]", "Gyroscope {} [dps]")
    text = clock(t, lambda at: at.strftime("%d/%m/%Y %H:%M:%S.") + milli(at))
    return {"st.csv": table(header, [text, ms(t, 0), ["n"] * len(t), ["00"] * len(t), *1000 * g(m), *deg(m)])}


def ulog2csv(t: np.ndarray, m: np.ndarray) -> Files:
    turns, pulls = ([f"{name}[{axis}]" for axis in range(3)] for name in ("gyro_rad", "accelerometer_m_s2"))
    names = ["timestamp", *turns, "gyro_integral_dt", "accelerometer_timestamp_relative", *pulls]
    micros = [1_000_000 + round(second * 1e6) for second in t]
    return {"log_sensor_combined_0.csv": table(",".join(names), [micros, *m[:, 3:].T, t, t, *m[:, :3].T])}


def ardupilot(t: np.ndarray, m: np.ndarray) -> Files:
    header = "timestamp,TimeUS,I,GyrX,GyrY,GyrZ,AccX,AccY,AccZ,EG"
    micros = [round(second * 1e6) for second in t]
    return {"imu.csv": table(header, [t + EPOCH_S, micros, [0] * len(t), *m[:, 3:].T, *m[:, :3].T, [0] * len(t)])}


def actigraph(form: Callable[[datetime], str] | None, mark: str, decimal: str) -> Writer:
    def write(t: np.ndarray, m: np.ndarray) -> Files:
        first = f"-- Data File Created By ActiGraph GT9X date format d at {1 / t[1]:.0f} Hz  Filter Normal --"
        parts = ("Timestamp", "Accelerometer {}", "Gyroscope {}")
        columns = [*([clock(t, form)] if form else []), *g(m), *deg(m)]
        header = titles(*(parts if form else parts[1:]), mark=mark)
        return {"RAW.csv": table(header, columns, mark, decimal, "\r\n", [first, *["Serial Number: 1"] * 8, "-" * 20])}

    return write


def geneactiv(t: np.ndarray, m: np.ndarray) -> Files:
    above = ["Device Type,GENEActiv", f"Measurement Frequency,{1 / t[1]:.0f} Hz", *["Field,value"] * 17, *[""] * 81]
    text = clock(t, lambda at: at.strftime("%Y-%m-%d %H:%M:%S:") + milli(at))
    return {"g.csv": table("", [text, *g(m), [0] * len(t), [0] * len(t), [25.8] * len(t)], above=above)}


def arduino(t: np.ndarray, m: np.ndarray) -> Files:
    return {"log.csv": table("millis,AcX,AcY,AcZ,GyX,GyY,GyZ", [ms(t, 0), *g(m), *deg(m)])}


def milli_g(t: np.ndarray, m: np.ndarray) -> Files:
    return {"log.csv": table(PLAIN, [t, *1000 * g(m), *deg(m)])}


def in_words(t: np.ndarray, m: np.ndarray) -> Files:
    header = titles("Time (seconds)", "Acceleration {} (meters/second^2)", "Angular velocity {} (degrees/second)")
    return {"log.csv": table(header, [t, *m[:, :3].T, *deg(m)])}


def small_units(t: np.ndarray, m: np.ndarray) -> Files:
    return {"log.csv": table(titles("time [s]", "acc_{} [mm/s2]", "gyro_{} [mrad/s]"), [t, *1000 * m.T])}


def korean(t: np.ndarray, m: np.ndarray) -> Files:
    return {"log.csv": table(titles("시간 (ms)", "가속도 {} (g)", "자이로 {} (°/s)"), [t * 1000, *g(m), *deg(m)])}


def foreign_linear(t: np.ndarray, m: np.ndarray) -> Files:
    header = titles("Vreme (s)", "Linearno ubrzanje {} (m/s^2)", "Žiroskop {} (rad/s)")
    return {"log.csv": table(header, [t, *(m - REST).T])}


def with_clock(title: str, form: Callable[[datetime], str], mark: str = ",", decimal: str = ".") -> Writer:
    header = titles(title, "acc_{}", "gyro_{}", mark=mark)
    return lambda t, m: {"log.csv": table(header, [clock(t, form), *m.T], mark, decimal)}


def minus_signs(t: np.ndarray, m: np.ndarray) -> Files:
    (text,) = one("time", "acc_{}", "gyro_{}", mark=";", decimal=",")(t, m).values()
    return {"log.csv": bytes(text).decode().replace("-", "\N{MINUS SIGN}")}


def turns(t: np.ndarray, m: np.ndarray) -> Files:
    rows = []
    for second, row, later in zip(t, m, motion(t + 0.002), strict=True):
        rows.append(f"{second:.6f}," + ",".join(f"{value:.6f}" for value in row[:3]) + ",,,")
        rows.append(f"{second + 0.002:.6f},,,," + ",".join(f"{value:.6f}" for value in later[3:]))
    return {"log.csv": "\n".join([PLAIN, *rows, ""])}


def missing(t: np.ndarray, m: np.ndarray) -> Files:
    lines = table(PLAIN, [t, *m.T]).split("\n")
    for place, word in ((5, "--"), (9, "NA"), (12, "None"), (20, "-"), (31, "n/a")):
        lines[place] = ",".join([lines[place].split(",")[0], *[word] * 6])
    return {"log.csv": "\n".join(lines)}


def gforce(t: np.ndarray, m: np.ndarray) -> Files:
    header = titles("Zeit", "gF{}", "TgF", "w{}", mark=";")
    return {"log.csv": table(header, [t, *g(m), t, *m[:, 3:].T], ";", ",")}


def chinese(t: np.ndarray, m: np.ndarray) -> Files:
    header = titles("时间", "设备名称", "加速度{}(g)", "角速度{}(°/s)", "角度{}(°)", mark="\t")
    text = clock(t, lambda at: at.strftime("%Y-%m-%d %H:%M:%S:") + milli(at))
    return {"log.csv": table(header, [text, ["W"] * len(t), *g(m), *deg(m), t, t, t], "\t").encode("gb18030")}


def renamed_sensor_logger(t: np.ndarray, m: np.ndarray) -> Files:
    return {f"2026-01-02_walk-{name}": content for name, content in sensor_logger(t, m).items()}


RUSSIAN = ("Время (с)", "Ускорение {} (м/с^2)", "Гироскоп {} (рад/с)")  # noqa: RUF001

KINDS: dict[str, Writer] = {
    "phyphox in Greek": one("Χρόνος (s)", "Επιτάχυνση {} (m/s^2)", "Γυροσκόπιο {} (rad/s)"),
    "phyphox in Vietnamese": one("Thời gian (s)", "Gia tốc {} (m/s^2)", "Con quay {} (rad/s)", mark=";", decimal=","),
    "phyphox in Serbian, without gravity": foreign_linear,
    "titles in Korean, ms, g and degrees": korean,
    "phyphox, a file a sensor": phyphox_folder,
    "phyphox, a file a sensor, without gravity": phyphox_linear,
    "MetaBase": metabase,
    "Polar Sensor Logger": polar,
    "MATLAB Mobile": matlab,
    "Sensor Logger, renamed": renamed_sensor_logger,
    "Xsens DOT, free acceleration": dot,
    "MotionSense": core_motion("userAcceleration.{}", "gravity.{}", "rotationRate.{}"),
    "Core Motion, words apart": core_motion("user_acceleration_{}", "gravity_{}", "rotation_rate_{}"),
    "linear acceleration and gravity": linear_and_gravity,
    "ST BLE Sensor": st_sensor,
    "ulog2csv": ulog2csv,
    "ArduPilot": ardupilot,
    "ActiGraph, German": actigraph(lambda at: at.strftime("%d.%m.%Y %H:%M:%S,") + milli(at), ";", ","),
    "ActiGraph without times": actigraph(None, ",", "."),
    "Arduino": arduino,
    "axis first": one("time_s", "{}_acc", "{}_gyro"),
    "dots": one("t", "accel.{}", "gyro.{}"),
    "superscripts": one("Time/s", "a_{} / m·s⁻²", "ω_{} / rad·s⁻¹"),
    "units in words": in_words,
    "mm/s2 and mrad/s": small_units,
    "mg unsaid": milli_g,
    "times of day, said in the title": with_clock(
        "Time (HH:MM:SS.mmm)", lambda at: at.strftime("%H:%M:%S.") + milli(at)
    ),
    "UTC": with_clock("Timestamp (UTC)", lambda at: at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), ";", ","),
    "German clock": with_clock("Zeitstempel", lambda at: at.strftime("%d.%m.%Y %H:%M:%S,") + milli(at), ";", ","),
    "a clock under a title unknown": with_clock("Kellonaika", lambda at: at.strftime("%H:%M:%S.") + milli(at)),
    "bars": one("time", "acc_{}", "gyro_{}", mark="|"),
    "spaces behind commas": one("time", "acc_{}", "gyro_{}", mark=", "),
    "UTF-16 with sep=": one("time", "acc_{}", "gyro_{}", mark=";", decimal=",", above=("sep=;",), encoding="utf-16"),
    "signs of minus": minus_signs,
    "rows in turns": turns,
    "words for no number": missing,
    "Physics Toolbox, German": gforce,
    "Windows-1251": one(*RUSSIAN, mark=";", decimal=",", encoding="cp1251"),
    "Shift-JIS": one("時間 (s)", "加速度 {} (m/s^2)", "ジャイロ {} (rad/s)", encoding="shift_jis"),
    "WitMotion in Chinese, GB 18030": chinese,
}
"""Each of them is the motion that its writer is given."""
WITHOUT_ROTATION: dict[str, Writer] = {
    "GENEActiv": geneactiv,
    "x, y and z in g": lambda t, m: {"log.csv": table(titles("time", "{} [g]", mark=";"), [t, *g(m)], ";", ",")},
    "an accelerometer by its name": lambda t, m: {"walk_accel.csv": table("timestamp,x,y,z", [ms(t), *m[:, :3].T])},
}
