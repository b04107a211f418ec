"""The settings of a server: one declaration gives each its option, variable, place in a file, bounds and help."""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ModelWrapValidatorHandler, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from preprocess.source import Limits

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
"""Names of this machine for itself, which no other machine's page can have."""
MIN_KEY_CHARACTERS = 16
"""The least length of a key: 16 characters of hexadecimal are 64 bits, which cannot be guessed by trying."""
PREFIX = "CROSSBIND_SERVE_"
"""The environment variable of a setting is this prefix and the setting's name in capitals."""
NOT_OPTIONS = ("api_keys",)
"""Settings without an option of the command line, because other users of a machine can read a process's arguments."""

_ORIGIN = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?")
"""An origin as browsers send it: scheme, host and port, without a path."""
_ROOT_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")
"""Where a proxy puts the server, such as `/search`; without characters that have a meaning in headers or HTML."""

Names = Annotated[tuple[str, ...], NoDecode]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
Megabytes = Annotated[float, Field(gt=0, le=1e9)]


class SettingsError(ValueError):
    """The settings are invalid: the message names each wrong setting and how to correct it."""


class Settings(BaseSettings):
    """The address, keys and bounds of a server. Raises SettingsError that lists all faults.

    A setting is taken from the argument. Otherwise it is taken from the environment variable `CROSSBIND_SERVE_NAME`
    (the keys: from `CROSSBIND_API_KEYS`), then from the file that `load` gets, then from its default.

    One client (an address; for IPv6, its network of 64 bits) has at most `client_share` of the connections, of the
    bytes that are received and of the places to wait.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, populate_by_name=True
    )

    host: str = Field("127.0.0.1", description="The address to listen on. Other than loopback ones need API keys.")
    port: int = Field(8000, ge=0, le=65535, description="The port to listen on; 0 takes a free one.")
    api_keys: Names = Field(
        (), validation_alias="CROSSBIND_API_KEYS", description="Keys that are asked for where there are any."
    )
    allowed_host: Names = Field(
        (),
        description="A name that the server answers to; may be given several times. Left out: its own address and, "
        "there, the loopback names; any name where keys are asked for.",
    )
    allowed_origin: Names = Field(
        (),
        description="An address of web pages, as https://app.example, whose scripts may use the API (CORS); may be "
        "given several times. Left out: pages of this server alone. `*`, any page, needs API keys.",
    )
    root_path: str = Field(
        "",
        description="Where a reverse proxy has this server, as /crossbind, whether it takes that off addresses or not.",
    )
    allow_folders: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="A folder of this machine; whoever uses the API may have it, or a folder in it, indexed. May be "
        "given several times (in a variable with : between). Left out: none.",
    )
    read_only: bool = Field(False, description="Nothing can be added or deleted.")
    positions: bool = Field(True, description="It is stored where uploaded pictures and films were taken.")
    words: bool = Field(
        True, description="Words in uploads are read as in the library's folders (`crossbind index --ocr --speech`)."
    )
    page: bool = Field(True, description="The web page on /, beside the API.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that is logged.")
    max_body_mb: Megabytes = Field(64.0, description="The largest request, in MiB.")
    max_bodies_mb: Megabytes | None = Field(
        None,
        description="All requests that are being received together, in MiB; left out: 512, or twice max_body_mb where "
        "that is more.",
    )
    max_terms: Count = Field(256, description="Texts and media of one request.")
    max_waiting: Count = Field(1024, description="Texts and media of all requests; then the answer is 429.")
    max_batch: Count = Field(32, description="Texts and media that are encoded together.")
    max_hits: Count = Field(200, description="The largest k of a search.")
    max_connections: Count = Field(2000, description="Connections that are open at once.")
    head_timeout_s: Seconds = Field(10.0, description="The time to send the head of a request.")
    body_timeout_s: Seconds = Field(30.0, description="The time to send the body of a request.")
    deadline_s: Seconds = Field(30.0, description="The time to answer a request; then the answer is 504.")
    add_deadline_s: Seconds = Field(600.0, description="The time to add an uploaded file; then the answer is 504.")
    client_share: float = Field(
        0.5, gt=0, le=1, description="The share of connections, bytes and places to wait that one client may have."
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError("\n".join(_sentence(fault) for fault in error.errors())) from None
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"the settings file is not TOML: {error}") from None

    @classmethod
    def load(cls, file: Path | None = None, **given: Any) -> Settings:
        """Settings from arguments, then from the environment, then from a TOML file. Raises SettingsError."""
        if file is None:
            return cls(**given)

        class FromFile(cls):  # type: ignore[valid-type,misc]
            model_config = SettingsConfigDict(toml_file=file)

        settings: Settings = FromFile(**given)
        return settings

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The sources of settings, the strongest first."""
        if settings_cls.model_config.get("toml_file") is None:
            return init_settings, env_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @field_validator("api_keys", "allowed_host", "allowed_origin", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """`a, b` of an environment variable -> (a, b)."""
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value

    @field_validator("allow_folders", mode="before")
    @classmethod
    def _split_paths(cls, value: Any) -> Any:
        """`/a:/b` of an environment variable -> (/a, /b)."""
        return tuple(part for part in value.split(os.pathsep) if part) if isinstance(value, str) else value

    @field_validator("allowed_host")
    @classmethod
    def _in_lower_case(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name.lower() for name in value)

    @field_validator("allowed_origin")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        found = tuple(origin.lower() for origin in value)
        for origin in found:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError("expected schemes and hosts, as https://app.example")
        return found

    @field_validator("root_path")
    @classmethod
    def _is_path(cls, value: str) -> str:
        path = value.rstrip("/")
        if not _ROOT_PATH.fullmatch(path):
            raise ValueError("expected a path, as /crossbind")
        return path

    @model_validator(mode="wrap")
    @classmethod
    def _all_faults_at_once(cls, values: Any, handler: ModelWrapValidatorHandler[Settings]) -> Settings:
        """Checks each setting by itself, then the settings that depend on each other, and reports all faults
        together.
        """
        faults: list[str] = []
        wrong: set[str] = set()
        try:
            settings = handler(values)
        except ValidationError as error:
            faults = [_sentence(fault) for fault in error.errors()]
            wrong = {str(fault["loc"][0]) for fault in error.errors()}
            settings = handler({name: value for name, value in values.items() if name not in wrong})
        faults += [fault for names, fault in settings._contradictions() if not wrong & names]
        if faults:
            raise ValueError("\n".join(faults))
        return settings

    def _contradictions(self) -> list[tuple[set[str], str]]:
        """(the settings that contradict each other, a sentence about them) for each contradiction."""
        found: list[tuple[set[str], str]] = []
        if self.max_terms > self.max_waiting:
            reason = f"expected at most max_waiting ({self.max_waiting}), got {self.max_terms}"
            found.append(({"max_terms", "max_waiting"}, f"max_terms: {reason}: such a request could never be taken"))
        if self.max_body_bytes > self.max_bodies_bytes:
            reason = f"expected at most max_bodies_mb ({self.max_bodies_mb}), got {self.max_body_mb}"
            found.append(({"max_body_mb", "max_bodies_mb"}, f"max_body_mb: {reason}: such a body could never be taken"))
        for number, key in enumerate(self.api_keys, 1):
            if len(key) < MIN_KEY_CHARACTERS or not key.isascii() or not key.isprintable() or " " in key:
                reason = f"expected at least {MIN_KEY_CHARACTERS} visible ASCII characters"
                found.append(({"api_keys"}, f"API key {number}: {reason}; `openssl rand -hex 24` makes one"))
        if "*" in self.allowed_origin and not self.api_keys:
            reason = "pages of any site may use the API only where keys are asked for; give some, or name the sites"
            found.append(({"allowed_origin", "api_keys"}, f"allowed_origin: {reason}"))
        if not self.is_loopback and not self.api_keys:
            reason = (
                f"{self.host} can be reached from other machines, which needs API keys; give some "
                "(CROSSBIND_API_KEYS or --api-keys-file), or listen on 127.0.0.1"
            )
            found.append(({"host", "api_keys"}, f"host: {reason}"))
        return found

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
        """The names in a Host header that are answered; an empty tuple means any name."""
        if self.allowed_host:
            return self.allowed_host
        # A page of another site can make its own name lead to this machine (DNS rebinding). Where a key is needed, that
        # gains the page nothing.
        return () if self.api_keys else (*LOOPBACK_NAMES, self.host)

    @property
    def max_body_bytes(self) -> int:
        """The largest body of a request."""
        return round(self.max_body_mb * 2**20)

    @property
    def max_bodies_bytes(self) -> int:
        """The largest number of bytes of all bodies that are being received together."""
        left_out = max(512.0, 2 * self.max_body_mb)
        return round((left_out if self.max_bodies_mb is None else self.max_bodies_mb) * 2**20)

    @property
    def max_waiting_each(self) -> int:
        """The largest number of waiting texts and media of one client, which is at least that of one request."""
        return max(self.max_terms, int(self.client_share * self.max_waiting))

    @property
    def max_bodies_bytes_each(self) -> int:
        """The largest number of bytes that are being received from one client, which is at least that of one
        request.
        """
        return max(self.max_body_bytes, int(self.client_share * self.max_bodies_bytes))

    @property
    def max_connections_each(self) -> int:
        """The largest number of connections of one client."""
        return max(1, int(self.client_share * self.max_connections))

    @property
    def limits(self) -> Limits:
        """The limits of a medium in a request, which are lower than for a file of the library, as strangers send it."""
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
        """The limits of a file of the library that is shown: as large as `crossbind index` takes, with less time."""
        return Limits(decode_timeout_s=min(15.0, self.deadline_s), decode_bytes_per_s=20e6)


_SENTENCES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "greater_than_equal": lambda bounds: f"expected at least {bounds['ge']}",
    "greater_than": lambda bounds: f"expected more than {bounds['gt']:g}",
    "less_than_equal": lambda bounds: f"expected at most {bounds['le']:g}",
    "literal_error": lambda bounds: f"expected {bounds['expected']}",
    "int_parsing": lambda _: "expected a whole number",
    "int_from_float": lambda _: "expected a whole number",
    "float_parsing": lambda _: "expected a number",
    "bool_parsing": lambda _: "expected true or false",
    "value_error": lambda bounds: str(bounds["error"]),
    "extra_forbidden": lambda _: "there is no such setting",
}
"""pydantic's name of a fault -> what is expected, in our words."""


def _sentence(fault: Any) -> str:
    """A fault in pydantic's form -> a sentence: `max_terms: expected at least 1, got 0`."""
    if fault["type"] == "value_error" and not fault["loc"]:
        return str(fault["ctx"]["error"])
    sentence = _SENTENCES.get(fault["type"])
    reason = sentence(fault.get("ctx", {})) if sentence else re.sub("^Input", "the value", fault["msg"])
    return f"{'.'.join(map(str, fault['loc']))}: {reason}, got {str(fault['input'])[:100]}"
