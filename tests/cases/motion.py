"""Motion logs as phone apps, sensors and data sets write them: all of them mean the same motion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import numpy as np

G = 9.80665
EPOCH_S = 1_700_000_000
START = datetime(2026, 1, 2, 23, 59, 58)


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
