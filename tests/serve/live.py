"""A real server on a real socket, in a thread of this process so that tests can look at it and take its guards off."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from serve.engine.service import Service
from serve.engine.settings import Settings
from serve.http import api, server
from serve.library.library import Library


@dataclass
class Live:
    """A running server: its address, the service behind it, and a client."""

    address: str
    service: Service
    http: httpx.Client
    running: server.Server

    @property
    def place(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.address.removeprefix("http://").rpartition(":")
        return host, int(port)


@contextmanager
def live(library: Library, settings: Settings | None = None, page: bool = False) -> Iterator[Live]:
    """Serves a library until the end of the block."""
    settings = settings or Settings(port=0)
    service = Service(library, settings)
    bound = server.bind(settings)
    started = threading.Event()
    running = server.server(api.create_app(service, page=page), settings, started.set)
    thread = threading.Thread(target=lambda: asyncio.run(running.serve([bound])))
    thread.start()
    try:
        assert started.wait(60)
        address = server.address(bound)
        headers = {"authorization": f"Bearer {settings.api_keys[0]}"} if settings.api_keys else {}
        with httpx.Client(base_url=address, headers=headers, timeout=60) as http:
            yield Live(address, service, http, running)
    finally:
        running.should_exit = True
        thread.join(120)
        assert not thread.is_alive()
