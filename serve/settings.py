"""What can be set about a server: one frozen value, checked as a whole before anything starts."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from preprocess.media import Limits

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
MIN_KEY_CHARACTERS = 16
"""A shorter key could be guessed by trying: 16 characters of hexadecimal are 64 bits."""


class SettingsError(ValueError):
    """Settings that cannot be served: the message names each one that is wrong, and the way out."""


@dataclass(frozen=True)
class Settings:
    """Address, keys and bounds of a server. Raises SettingsError that lists all that is wrong.

    `api_keys` are asked for when there are any; without, the server listens on a loopback address only.
    `allowed_hosts` are the names it answers to (its own address and, there, the loopback names when left empty; any
    name where keys are asked for). `max_body_bytes` bounds one request, `max_bodies_bytes` those being received
    together, `max_terms` the texts and media of one request, `max_waiting` those of all requests together,
    `max_batch` what is encoded at once, `max_hits` the k of a search. One client (an address; of IPv6, its network of
    64 bits) has at most `client_share` of the connections, of the bytes received and of the places to wait. A request's
    head must be there after `head_timeout_s`, its body after `body_timeout_s`, its answer after `deadline_s`, the
    answer to an upload that is added after `add_deadline_s`.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_keys: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    read_only: bool = False
    max_body_bytes: int = 64 * 2**20
    max_bodies_bytes: int = 512 * 2**20
    max_terms: int = 256
    max_waiting: int = 1024
    max_batch: int = 32
    max_hits: int = 200
    max_connections: int = 2000
    head_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    deadline_s: float = 30.0
    add_deadline_s: float = 600.0
    client_share: float = 0.5

    def __post_init__(self) -> None:
        wrong = []
        if not 0 <= self.port < 65536:
            wrong.append(f"port: expected 0 to 65535, got {self.port}")
        for name in ("max_body_bytes", "max_bodies_bytes", "max_terms", "max_waiting", "max_batch", "max_hits"):
            if getattr(self, name) < 1:
                wrong.append(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("head_timeout_s", "body_timeout_s", "deadline_s", "add_deadline_s"):
            if not getattr(self, name) > 0:
                wrong.append(f"{name}: expected more than 0 s, got {getattr(self, name)}")
        if not 0 < self.client_share <= 1:
            wrong.append(f"client_share: expected more than 0 and at most 1, got {self.client_share}")
        if self.max_terms > self.max_waiting:
            wrong.append(
                f"max_terms: expected at most max_waiting ({self.max_waiting}), got {self.max_terms}: such a request "
                "could never be taken"
            )
        if self.max_body_bytes > self.max_bodies_bytes:
            wrong.append(
                f"max_body_bytes: expected at most max_bodies_bytes ({self.max_bodies_bytes}), "
                f"got {self.max_body_bytes}: such a body could never be taken"
            )
        for number, key in enumerate(self.api_keys, 1):
            if len(key) < MIN_KEY_CHARACTERS or not key.isascii() or not key.isprintable() or " " in key:
                wrong.append(
                    f"API key {number}: expected at least {MIN_KEY_CHARACTERS} visible ASCII characters; "
                    "`openssl rand -hex 24` makes one"
                )
        if not self.is_loopback and not self.api_keys:
            wrong.append(
                f"host: {self.host} can be reached from other machines, which needs API keys; give some "
                "(CROSSBIND_API_KEYS or --api-keys-file), or listen on 127.0.0.1"
            )
        if wrong:
            raise SettingsError("\n".join(wrong))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names in a Host header that are answered; none means any."""
        if self.allowed_hosts:
            return self.allowed_hosts
        # A page of another site can have its own name lead to this machine (DNS rebinding). Where a key is asked for,
        # that gains it nothing.
        return () if self.api_keys else (*LOOPBACK_NAMES, self.host)

    @property
    def max_waiting_each(self) -> int:
        """Texts and media of one client that may wait: one request's at least."""
        return max(self.max_terms, int(self.client_share * self.max_waiting))

    @property
    def max_bodies_bytes_each(self) -> int:
        """Bytes that may be received from one client: one request's at least."""
        return max(self.max_body_bytes, int(self.client_share * self.max_bodies_bytes))

    @property
    def max_connections_each(self) -> int:
        """Connections of one client."""
        return max(1, int(self.client_share * self.max_connections))

    @property
    def limits(self) -> Limits:
        """What a medium of a request may be: less than a file of the library, as others send it."""
        return Limits(
            max_bytes=self.max_body_bytes,
            max_pixels=50_000_000,
            max_duration_s=3600.0,
            max_rows=5_000_000,
            decode_timeout_s=min(15.0, self.deadline_s),
            decode_bytes_per_s=20e6,
            worker_memory_bytes=3 * 2**30,
        )

    @property
    def library_limits(self) -> Limits:
        """What a file of the library may be, to be shown: as large as `crossbind index` takes, in less time."""
        return Limits(decode_timeout_s=min(15.0, self.deadline_s), decode_bytes_per_s=20e6)
