"""The sandbox of a decode worker: what a process of Linux can give up for good, without root and without a helper.

A worker calls `close` once, before it sees the first untrusted byte. Each guard works without the others, and what a
machine lacks is said, not hidden: `crossbind doctor` prints the report.

- Limits (setrlimit): no core dumps, few descriptors, small files. The pool sets memory and CPU time of each task.
- No new privileges, no capabilities: nothing a decoder could start would be more than it is; root loses its powers.
- Landlock: of the file system only what the interpreter and the packages need, to read. A medium is opened by the pool
  and handed over as a descriptor, so a worker needs no path of the user's, and has none.
- seccomp: a list of the system calls that decoders need. All else fails: sockets, new processes, signals to others,
  `ptrace`, writing to a path, `ioctl` and `fcntl` beyond a few.

Landlock and seccomp are called through ctypes: libseccomp would be a library of the system, and the bindings of
Landlock in the registry are younger than the calls are stable (three calls, linux/landlock.h; one filter,
linux/seccomp.h). Nothing here is imported by the process that uses the pool, but for `hide_memory`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import importlib.util
import os
import platform
import site
import struct
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from preprocess.extras import OWN_PACKAGES

READERS_NEED = (
    *("numpy", "PIL", "av", "soundfile", "_soundfile", "_soundfile_data", "soxr", "scipy", "pyarrow"),
    *("cffi", "_cffi_backend", "tifffile", "OpenEXR"),
    *("pi_heif", "_pi_heif", "pillow_jxl", "pypdfium2", "pypdfium2_raw", "packaging"),
    *("rapidocr", "onnxruntime", "cv2", "omegaconf", "pyclipper", "shapely", "yaml", "tqdm", "requests", "colorlog"),
    *("urllib3", "certifi", "idna", "charset_normalizer", "six", "pocketsphinx"),
)
"""Top-level packages that readers import, where they do not lie in the interpreter's own folders."""

_MAX_FILES = 64
"""File descriptors of a worker: its pipes, the medium and the libraries that it loads late."""
_MAX_FILE_BYTES = 4 * 2**30
"""The longest file that a worker may write, which is its scratch copy of a medium: the default of `Limits.max_bytes`.
"""
_SYSTEM = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo", "/etc/ld.so.cache"),
    *("/etc/localtime", "/dev/null", "/dev/urandom", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu"),
)
"""Files and folders of the system that libraries read while they run; everything else is out of reach."""

# linux/prctl.h, linux/capability.h
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_SIGKILL = 9
_CAPABILITY_VERSION = 0x20080522
# linux/landlock.h: rights by the version that brought them
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446

# (x86-64, AArch64): asm/unistd_64.h and asm-generic/unistd.h; None: not there.
_CALLS: dict[str, tuple[int | None, int | None]] = {
    **{"read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67)},
    **{"preadv": (295, 69), "preadv2": (327, 286), "lseek": (8, 62), "close": (3, 57), "close_range": (436, 436)},
    **{"fstat": (5, 80), "newfstatat": (262, 79), "stat": (4, None), "lstat": (6, None), "statx": (332, 291)},
    **{"access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None)},
    **{"readlinkat": (267, 78), "getcwd": (79, 17), "getdents64": (217, 61), "statfs": (137, 43), "fstatfs": (138, 44)},
    **{"dup": (32, 23), "dup2": (33, None), "dup3": (292, 24), "pipe2": (293, 59), "eventfd2": (290, 19)},
    **{"poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72)},
    **{"epoll_create1": (291, 20), "epoll_ctl": (233, 21), "epoll_wait": (232, None), "epoll_pwait": (281, 22)},
    **{"ftruncate": (77, 46), "fadvise64": (221, 223), "recvmsg": (47, 212), "recvfrom": (45, 207)},
    **{"mmap": (9, 222), "munmap": (11, 215), "mprotect": (10, 226), "mremap": (25, 216), "madvise": (28, 233)},
    **{"brk": (12, 214), "mincore": (27, 232), "membarrier": (324, 283), "get_mempolicy": (239, 236)},
    **{"rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132)},
    **{"rt_sigpending": (127, 136), "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133)},
    **{"restart_syscall": (219, 128), "exit": (60, 93), "exit_group": (231, 94)},
    **{"futex": (202, 98), "futex_waitv": (449, 449), "set_robust_list": (273, 99), "get_robust_list": (274, 100)},
    **{"rseq": (334, 293), "set_tid_address": (218, 96), "arch_prctl": (158, None)},
    **{"gettid": (186, 178), "getpid": (39, 172), "getppid": (110, 173), "getpgrp": (111, None), "getpgid": (121, 155)},
    **{"getsid": (124, 156), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177)},
    **{"getresuid": (118, 148), "getresgid": (120, 150), "getgroups": (115, 158), "umask": (95, 166)},
    **{"getrlimit": (97, 163), "getrusage": (98, 165), "getpriority": (140, 141), "times": (100, 153)},
    **{"sysinfo": (99, 179), "uname": (63, 160), "getrandom": (318, 278), "getcpu": (309, 168)},
    **{"sched_getaffinity": (204, 123), "sched_getparam": (143, 121), "sched_getscheduler": (145, 120)},
    **{"sched_get_priority_max": (146, 125), "sched_get_priority_min": (147, 126), "sched_yield": (24, 124)},
    **{"nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_gettime": (228, 113), "clock_getres": (229, 114)},
    **{"gettimeofday": (96, 169), "time": (201, None)},
}
_HIGHEST_CALL = 461  # Linux 6.9. Newer ones are "not implemented", so that a C library falls back to older ones.
_CLONE, _CLONE3, _KILL, _TGKILL = (56, 220), (435, 435), (62, 129), (234, 131)
_PRCTL, _PRLIMIT, _IOCTL, _FCNTL = (157, 167), (302, 261), (16, 29), (72, 25)
_OPEN, _OPENAT, _SECCOMP = (2, None), (257, 56), (317, 277)
_CLONE_THREAD = 0x10000
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | (getattr(os, "O_TMPFILE", 0) & ~os.O_DIRECTORY)
_PRCTLS = (
    3,
    15,
    16,
    23,
    39,
    0x53564D41,
)  # dumpable?, set and get a thread's name, capability?, privileges?, name memory
_IOCTLS = (
    0x5401,
    0x5413,
    0x541B,
    0x5421,
    0x5450,
    0x5451,
)  # is it a terminal, its size, bytes to read, flags of descriptors
_FCNTLS = (0, 1, 2, 3, 4, 1030, 1032, 1034)  # duplicate, get and set flags, size of a pipe, seals

# linux/bpf_common.h, linux/seccomp.h, linux/audit.h
_LOAD, _IS, _AT_LEAST, _HAS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL_PROCESS, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_SET_MODE_FILTER, _ALL_THREADS, _NO_SPECULATION_FIX = 1, 1, 4


class Guard(NamedTuple):
    """One guard of a worker: its name, whether it is active, and what it does or why it is not."""

    name: str
    active: bool
    detail: str


def close(parent: int, readable: list[str]) -> list[Guard]:
    """Closes the sandbox around this process, a child of process `parent`; `readable` folders stay readable."""
    return [
        _tried("limits", _limit),
        _tried("end with the parent", lambda: _end_with(parent), linux=True),
        _tried("no new privileges", _give_up_privileges, linux=True),
        _tried("files (Landlock)", lambda: _close_files(readable), linux=True),
        _tried("system calls (seccomp)", _close_calls, linux=True),
    ]


def hide_memory() -> bool:
    """Takes this process's memory from other processes of its user (`PR_SET_DUMPABLE`); whether that was possible.

    It also ends core dumps and attaching a debugger without root. Linux only.
    """
    if sys.platform != "linux":
        return False
    with contextlib.suppress(OSError, AttributeError):
        _prctl(_PR_SET_DUMPABLE, 0)
        return True
    return False


def readable_paths(extra: list[str]) -> Iterator[tuple[Path, int]]:
    """(path, Landlock rights) of what the interpreter, the packages that readers need and our own are made of."""
    whole = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), sysconfig.get_path("purelib")}
    whole |= {sysconfig.get_path("platlib"), site.getusersitepackages(), *site.getsitepackages()}
    prefixes = [Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix)]
    whole |= {str(prefix / "lib") for prefix in prefixes}
    for path in sys.path:
        resolved = Path(path).resolve()
        inside = (
            resolved.name in ("site-packages", "dist-packages")
            or any(resolved.is_relative_to(prefix / "lib") for prefix in prefixes)
            or any(resolved.glob("*.dist-info"))  # packages were installed there, as by `pip install --target`
        )
        # A folder of the user's own may be on the path: its packages are found by name, its other files are not read.
        yield Path(path), _READ_FILE | _READ_DIR if inside else _READ_DIR
    libraries = [path for path in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if os.path.isabs(path)]
    for path in (*whole, *_SYSTEM, *extra, *libraries):
        yield Path(path), _READ_FILE | _READ_DIR
    for name in (*OWN_PACKAGES, *READERS_NEED):
        for place in _places_of(name):
            yield place, _READ_FILE | _READ_DIR


def _places_of(name: str) -> Iterator[Path]:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return
    if spec is None:
        return
    if spec.submodule_search_locations is None:
        if spec.origin:
            yield Path(spec.origin)
        return
    for folder in spec.submodule_search_locations:
        yield Path(folder)
        # auditwheel's shared libraries lie beside the package, and behind links where an installer made links.
        for place in {Path(folder).parent, (Path(folder) / "__init__.py").resolve().parent.parent}:
            yield from map(Path, glob.glob(f"{glob.escape(str(place))}/*.libs"))
        yield (Path(folder) / "__init__.py").resolve().parent


def _tried(name: str, close: Callable[[], str], linux: bool = False) -> Guard:
    if linux and sys.platform != "linux":
        return Guard(name, False, f"Linux only, this is {sys.platform}")
    try:
        return Guard(name, True, close())
    except (OSError, AttributeError, ValueError) as error:
        return Guard(name, False, str(error))


def _end_with(parent: int) -> str:
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != parent:  # it ended before the call; 1 or a reaper has adopted this process
        os._exit(0)
    return "killed when the pool's process dies"


def _limit() -> str:
    import resource

    for which, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _MAX_FILES),
        (resource.RLIMIT_FSIZE, _MAX_FILE_BYTES),
    ):
        hard = resource.getrlimit(which)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (most, most))
    return "no core dump, few descriptors, small files; memory and CPU time by task"


def _give_up_privileges() -> str:
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    header = ctypes.create_string_buffer(struct.pack("Ii", _CAPABILITY_VERSION, 0))
    _checked(_libc().capset(header, ctypes.create_string_buffer(24)))
    return "and no capabilities"


def _close_files(readable: list[str]) -> str:
    libc = _libc()
    version = libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if version < 1:
        raise OSError("this kernel has no Landlock, or it is not among its security modules (Linux 5.13 or later)")
    handled = sum(rights for since, rights in _FILE_RIGHTS.items() if since <= version)
    network = 0b11 if version >= 4 else 0  # bind and connect
    scoped = 0b11 if version >= 6 else 0  # abstract sockets and signals
    attributes = struct.pack("QQQ", handled, network, scoped)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    rules = _checked(
        libc.syscall(
            _LANDLOCK_CREATE,
            ctypes.create_string_buffer(attributes),
            ctypes.c_size_t(len(attributes)),
            ctypes.c_uint32(0),
        )
    )
    threads = len(os.listdir("/proc/self/task"))
    try:
        for path, rights in readable_paths(readable):
            _allow(rules, path, rights)
        _checked(libc.syscall(_LANDLOCK_RESTRICT, ctypes.c_int(rules), ctypes.c_uint32(0)))
    finally:
        os.close(rules)
    if threads > 1:
        raise OSError(f"{threads} threads ran before it was closed, and it holds for one of them")
    return f"version {version}: of the file system, Python and its packages can be read"


def _allow(rules: int, path: Path, rights: int) -> None:
    try:
        place = os.open(path, getattr(os, "O_PATH", 0) | os.O_CLOEXEC)
    except OSError:  # not on this machine
        return
    try:
        allowed = rights if os.path.isdir(path) else rights & _READ_FILE
        if allowed:
            rule = ctypes.create_string_buffer(struct.pack("=Qi", allowed, place))
            _checked(_libc().syscall(_LANDLOCK_ADD, ctypes.c_int(rules), ctypes.c_int(1), rule, ctypes.c_uint32(0)))
    finally:
        os.close(place)


def _close_calls() -> str:
    if platform.machine() not in _MACHINES or sys.maxsize < 2**32:
        raise OSError(f"there is no list of system calls for {platform.machine()}")
    column, _ = _MACHINES[platform.machine()]
    code = b"".join(_filter(os.getpid()))
    buffer = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer)))
    call = _SECCOMP[column]
    flags = _ALL_THREADS | _NO_SPECULATION_FIX  # the latter costs a tenth of the speed, and there is no secret here
    if _checked(_libc().syscall(call, ctypes.c_uint(_SET_MODE_FILTER), ctypes.c_uint(flags), program)):
        raise OSError("a thread could not be closed in")
    return "no network, no processes, nothing written but replies"


def _filter(pid: int) -> Iterator[bytes]:
    """The program, in the instructions of classic BPF: (code, jump if true, jump if false, value)."""
    column, machine = _MACHINES[platform.machine()]
    denied, unknown = _ERROR | errno.EPERM, _ERROR | errno.ENOSYS

    def step(code: int, value: int, true: int = 0, false: int = 0) -> bytes:
        return struct.pack("HBBI", code, true, false, value)

    def argument(number: int, high: bool = False) -> bytes:
        return step(_LOAD, 16 + 8 * number + 4 * high)

    def only(call: tuple[int | None, int | None], *body: bytes) -> Iterator[bytes]:
        """`body` where the call is `call`; it ends with a return."""
        if (number := call[column]) is not None:
            yield step(_IS, number, 0, len(body))
            yield from body

    def one_of(argument_number: int, values: tuple[int, ...], otherwise: int) -> list[bytes]:
        checks = [argument(argument_number)]
        for value in values:
            checks += [step(_IS, value, 0, 1), step(_RETURN, _ALLOW)]
        return [*checks, step(_RETURN, otherwise)]

    allow, deny = step(_RETURN, _ALLOW), step(_RETURN, denied)
    yield step(_LOAD, 4)
    yield step(_IS, machine, 1, 0)
    yield step(_RETURN, _KILL_PROCESS)
    yield step(_LOAD, 0)
    yield step(_AT_LEAST, _HIGHEST_CALL + 1, 0, 1)
    yield step(_RETURN, unknown)
    for call in _CALLS.values():
        yield from only(call, allow)
    yield from only(_CLONE3, step(_RETURN, unknown))  # its flags lie in memory; `clone` has them in a register
    yield from only(_CLONE, argument(0), step(_HAS, _CLONE_THREAD, 0, 1), allow, deny)
    for call in (_KILL, _TGKILL):
        yield from only(call, *one_of(0, (pid,), denied))
    for call, place in ((_OPEN, 1), (_OPENAT, 2)):
        yield from only(call, argument(place), step(_HAS, _WRITING, 0, 1), step(_RETURN, _ERROR | errno.EACCES), allow)
    # Limits may be asked for, not set.
    no_new = [argument(2), step(_IS, 0, 0, 3), argument(2, True), step(_IS, 0, 0, 1), allow, deny]
    yield from only(_PRLIMIT, *no_new)
    yield from only(_PRCTL, *one_of(0, _PRCTLS, denied))
    yield from only(_IOCTL, *one_of(1, _IOCTLS, _ERROR | errno.ENOTTY))
    yield from only(_FCNTL, *one_of(1, _FCNTLS, denied))
    yield deny


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


def _prctl(option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)
    _checked(_libc().prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
