"""The body of a request, with a count of its bytes and a bound on its time."""

from __future__ import annotations

import asyncio
from typing import Protocol

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from serve.engine.settings import Settings

_RETRY_S = 2
"""Seconds after which a client whose body had no room is asked to try again."""


class Refusal(Exception):
    """A refusal of a request: an HTTP status, a code for programs, and a sentence for people."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}


class Room(Protocol):
    """Counts the bytes of all bodies that are being received, together and for each client."""

    def received(self, client: str, count: int) -> float:
        """Counts received bytes of a client -> the seconds for which no more of them should be read."""
        ...

    def has_room(self, client: str) -> bool:
        """Whether more bytes may be received from a client."""
        ...


class RequestBody:
    """The `receive` of a request, with a count of its bytes and a bound on its time, whatever its headers say."""

    def __init__(self, receive: Receive, room: Room, settings: Settings, client: str) -> None:
        self._receive = receive
        self._client = client
        self._all_there = asyncio.Event()
        self._room = room
        self._timeout_s = settings.body_timeout_s
        self._until: float | None = None
        self._complete = False
        self.most_bytes = settings.max_body_bytes
        self.size = 0
        self.refusal: Refusal | None = None

    def expect(self, headers: Headers) -> None:
        """Refuses a request at once whose headers announce too large a body."""
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.most_bytes:
            self._refuse_size()

    async def __call__(self) -> Message:
        """The next message. Raises Refusal."""
        if self.refusal is not None:
            raise self.refusal
        if self._complete:
            return await self._receive()
        if self._until is None:
            self._until = asyncio.get_running_loop().time() + self._timeout_s
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            self._refuse(408, "too_slow", f"the body was not there after {self._timeout_s:g} s")
        if message["type"] != "http.request":
            return message
        count = len(message.get("body", b""))
        self.size += count
        pause_s = self._room.received(self._client, count)
        if self.size > self.most_bytes:
            self._refuse_size()
        if not self._room.has_room(self._client):
            reason = "too much is being received already"
            self._refuse(429, "too_busy", f"{reason}; try again in {_RETRY_S} s", {"retry-after": str(_RETRY_S)})
        self._complete = not message.get("more_body", False)
        if self._complete:
            self._all_there.set()
        elif pause_s:
            self._until += pause_s
            await asyncio.sleep(pause_s)
        return message

    async def left(self) -> None:
        """Returns when the client has left, after the whole body was received."""
        await self._all_there.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def all(self) -> bytes:
        """The whole body."""
        parts = []
        while not self._complete:
            message = await self()
            if message["type"] != "http.request":
                break
            parts.append(message.get("body", b""))
        return b"".join(parts)

    def _refuse_size(self) -> None:
        self._refuse(413, "too_large", f"expected at most {self.most_bytes:,} bytes in a request (max_body_mb)")

    def _refuse(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        self.refusal = Refusal(status, code, message, headers)
        raise self.refusal
