"""Everything an operator may set, read once at start from `EKIBEN_*` environment variables.

A variable that is misspelt or holds a bad value stops the service with a sentence that names variable and value;
`table()` is the documentation.
"""

import os
import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.engine.limits import Limits
from service.engine.sessions.device import DeviceSetting

PREFIX = "EKIBEN_"
# Set by Kubernetes in every pod beside a service named `ekiben`: addresses, no settings of ours.
KUBERNETES = re.compile(r"EKIBEN_(SERVICE_HOST|SERVICE_PORT|PORT)(_|$)")


class SettingsError(ValueError):
    """A setting that cannot be used; the message names the environment variable and its value."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    bundles: Path = Field(default=Path("bundles"), description="folder of bundles, one folder a model")
    device: DeviceSetting = Field(
        default="auto", description="`cuda`: every node on the GPU or no start; `auto`: the GPU if a session runs there"
    )
    threads: int = Field(
        default=2,
        ge=1,
        le=256,
        description="requests that compute at the same time in one worker; no more than its cores",
    )
    intra_op_threads: int = Field(default=1, ge=1, le=256, description="threads inside one computation")
    request_timeout_ms: int = Field(
        default=30_000, ge=1, le=86_400_000, description="what is not answered in time is refused or given up"
    )
    queue_items: int = Field(default=2048, ge=1, description="items that wait for one model at most")
    max_batch_items: int = Field(default=48, ge=1, le=1024, description="items that are computed together at most")
    max_batch_steps: int = Field(
        default=8192,
        ge=1,
        le=1 << 20,
        description="steps (tokens) in one batch at most, padding and a past that is sent included",
    )
    max_generations: int = Field(default=64, ge=1, description="texts that are generated at a time at most")
    max_body_bytes: int = Field(default=16 << 20, ge=1 << 10, description="a larger request body is refused with 413")
    trusted_proxies: str = Field(
        default="",
        description="addresses or networks, separated by commas, of proxies whose `X-Forwarded-For` is believed",
    )
    poll_s: float = Field(default=1.0, gt=0, le=3600, description="seconds between two looks for new versions")
    heartbeat_s: float = Field(
        default=30.0, gt=0, le=3600, description="seconds between two checks of a model against a golden case"
    )
    hang_s: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="computing, or a stage of loading, that takes longer hangs; a worker that can do no more is ended",
    )

    drain_s: float = Field(
        default=1.0, ge=0, le=3600, description="after SIGTERM: seconds in which new requests are told to come back"
    )
    grace_s: float = Field(
        default=25.0, gt=0, le=3600, description="after SIGTERM: seconds until whatever is still there is killed"
    )

    @field_validator("bundles", mode="before")
    @classmethod
    def _is_named(cls, bundles: object) -> object:
        if bundles == "":
            raise ValueError("expected a folder")
        return bundles

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, proxies: str) -> str:
        _networks(proxies)
        return proxies

    @property
    def trusted_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return _networks(self.trusted_proxies)

    @property
    def limits(self) -> Limits:
        """What the engine holds to."""
        return Limits(
            max_batch_items=self.max_batch_items,
            max_batch_steps=self.max_batch_steps,
            max_queue_items=self.queue_items,
            max_generations=self.max_generations,
            timeout_s=self.request_timeout_ms / 1000,
        )


def _networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """The networks in a list separated by commas; raises ValueError that names the part that is none."""
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def load_settings() -> Settings:
    """Read the environment; raises SettingsError that names every variable that is wrong."""
    named = ((key.upper(), value) for key, value in os.environ.items())  # pydantic ignores the case, so we do
    given = {key: value for key, value in named if key.startswith(PREFIX) and not KUBERNETES.match(key)}
    unknown = sorted(set(given) - set(_variables()))
    if unknown:
        raise SettingsError(f"no such setting: {', '.join(unknown)}; there are {', '.join(_variables())}")
    try:
        return Settings()
    except ValidationError as error:
        faults = ((_variable(str(fault["loc"][0])), fault["msg"]) for fault in error.errors())
        raise SettingsError("; ".join(f"{name}={given[name]!r}: {what}" for name, what in faults)) from error


def _variable(field: str) -> str:
    return PREFIX + field.upper()


def _variables() -> list[str]:
    return [_variable(field) for field in Settings.model_fields]


def table() -> str:
    """The settings as a Markdown table."""
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        rows.append(f"| `{_variable(name)}` | `{field.default}` | {field.description} |")
    return "\n".join(rows) + "\n"
