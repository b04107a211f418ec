"""A decode worker: `python -P -m preprocess.decoding.worker SETTINGS`. Started by the pool, never by hand.

Tasks come on the socket that is standard input, replies go to standard output (see `preprocess.decoding.protocol`).
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pickle
import signal
import socket
import sys
import tempfile
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np

from preprocess.decoding import cores, sandbox, scratch
from preprocess.decoding.protocol import LENGTH, MAX_PARTS, header_of, read_here, refusal_of
from preprocess.source import MediaError, Opened, Segment


def main(settings: dict[str, Any]) -> None:
    """Closes the sandbox, says which guards hold, and then reads media until the pool hangs up.

    `settings` has the pool's process `parent`, the folders that stay `readable`, and the `modules` of readers that lie
    outside of them and so have to be imported before.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it closes our stdin
    tasks, replies = socket.socket(fileno=os.dup(0)), os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_RDWR)
    os.dup2(silence, 0)
    os.dup2(2, 1)  # a decoder that prints must not write into the replies
    with contextlib.suppress(OSError):  # no folder for temporary files: they stay in memory
        scratch.use(tempfile.TemporaryFile())  # noqa: SIM115 - for the life of the worker
    cores.available_cores()  # what it reads is out of reach later
    for module in settings["modules"]:
        importlib.import_module(module)
    guards = sandbox.close(settings["parent"], settings["readable"])
    _send(replies, json.dumps(guards).encode())
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    while (task := _receive(tasks)) is not None:
        payload, descriptors = task
        segments: list[Segment] = []
        try:
            read, source, config, limits, plan = pickle.loads(payload)
            if descriptors:
                parts = zip(source.parts, descriptors[1:], strict=True)
                source = replace(
                    source,
                    content=Opened(descriptors[0]),
                    parts=tuple(replace(part, content=Opened(descriptor)) for part, descriptor in parts),
                )
            segments = read_here(read, source, config, limits, plan)
            header = header_of(segments)
        except MediaError as error:
            header = refusal_of(error)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        _send(replies, header)
        for segment in segments:
            array = np.ascontiguousarray(segment.views)
            _send(replies, array.reshape(-1).view(np.uint8).data)


def _receive(tasks: socket.socket) -> tuple[bytearray, list[int]] | None:
    """A task and the descriptors that came with it; None where the pool has hung up."""
    prefix, descriptors, _, _ = socket.recv_fds(tasks, LENGTH.size, 1 + MAX_PARTS)
    while 0 < len(prefix) < LENGTH.size and (more := tasks.recv(LENGTH.size - len(prefix))):
        prefix += more
    if len(prefix) < LENGTH.size:
        return None
    payload = bytearray(LENGTH.unpack(prefix)[0])
    view, done = memoryview(payload), 0
    while done < len(payload):
        if not (got := tasks.recv_into(view[done:])):
            return None
        done += got
    return payload, descriptors


def _send(replies: BinaryIO, payload: bytes | memoryview) -> None:
    replies.write(LENGTH.pack(len(payload)))
    replies.write(payload)
    replies.flush()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
