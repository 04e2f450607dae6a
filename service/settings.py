"""The settings of the service, read once at start from `EKIBEN_*` environment variables.

A misspelt variable or an invalid value stops the service and is named in the message; `settings_table()` documents all.
"""

import os
import re
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.engine.limits import MAX_BATCH_ITEMS, Limits
from service.engine.repository.registry import ReadyWhen
from service.engine.sessions.device import DeviceSetting
from service.keys.key_file import read_keys
from service.manifest import MODEL_NAME
from service.signature import parse_keys
from service.tls_files import TlsFiles

PREFIX = "EKIBEN_"
# Kubernetes sets these addresses in every pod of a namespace that has a service named `ekiben`; they are not settings.
KUBERNETES = re.compile(r"EKIBEN_(SERVICE_HOST|SERVICE_PORT|PORT)(_|$)")

Count = Annotated[int, Field(ge=1)]
Threads = Annotated[int, Field(ge=1, le=256)]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(gt=0, le=3600)]


class SettingsError(ValueError):
    """An invalid setting; the message names the environment variable and its value."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", use_attribute_docstrings=True)

    bundles: Path = Path("bundles")
    """folder of the bundles, with one folder per model"""
    device: DeviceSetting = "auto"
    """`cpu`; `cuda`, which needs every node on the GPU; or `auto`, the GPU if a session runs there"""
    threads: Threads = 2
    """batches that one worker computes at the same time; use at most one per core"""
    intra_op_threads: Threads = 1
    """threads within one computation (onnxruntime intra-op)"""
    request_timeout_ms: int = Field(default=30_000, ge=1, le=86_400_000)
    """default request timeout"""
    queue_items: Count = 2048
    """maximum number of items in the queue of one model"""
    max_batch_items: int = Field(default=48, ge=1, le=MAX_BATCH_ITEMS)
    """maximum number of items in a batch"""
    max_batch_steps: int = Field(default=8192, ge=1, le=1 << 20)
    """maximum number of steps (tokens) in a batch, including padding and a past sent by the client"""
    max_generations: Count = 64
    """maximum number of texts that one model generates at the same time; more wait"""
    kv_cache_bytes: int = Field(default=1 << 30, ge=1 << 20)
    """memory for keys and values of the texts that one model generates at the same time"""
    prefix_cache_bytes: int = Field(default=256 << 20, ge=0)
    """memory for keys and values of the beginnings of earlier prompts of one model; 0: none are kept"""
    max_body_bytes: int = Field(default=16 << 20, ge=1 << 10)
    """maximum size of a request body, packed and unpacked; a larger one is refused with 413"""
    body_budget_bytes: int = Field(default=256 << 20, ge=1 << 10)
    """memory of one worker for the bodies of the requests in flight, of which one client may use half"""
    keep_alive_s: Seconds = 75.0
    """seconds until a connection without a request is closed; an unfinished request head has 30 s"""
    max_connections: Count = 16_384
    """maximum number of connections of one worker, as far as the system lets it open files"""
    max_client_connections: Count = 4096
    """maximum number of connections of one client to one worker; proxies in `EKIBEN_TRUSTED_PROXIES` have no limit"""
    grpc_port: int = Field(default=0, ge=0, le=65535)
    """port of the Open Inference Protocol over gRPC, at the address of the HTTP port; 0: none"""
    trusted_proxies: str = ""
    """comma-separated addresses or networks of proxies whose `X-Forwarded-For` header is trusted"""
    ready_when: str = "all"
    """models that the service needs to be ready: `all` that were there at the start, `any`, or comma-separated names"""
    load_memory_bytes: int = Field(default=0, ge=0)
    """memory that a bundle may allocate while it is checked; 0: 1 GiB, 8 times its size, and 4 times its data file"""
    prepack: bool = False
    """let each process copy the weights of data files for faster products instead of sharing them"""
    trusted_keys: str = ""
    """comma-separated ed25519 public keys, or a file with one a line; bundles that none of them signed are refused"""
    keys: Path | None = None
    """file of keys, made by `python -m service.keys`; without one everyone may do everything"""
    allow_anonymous: bool = False
    """listen on other addresses than those of this machine although there are no keys"""
    allowed_hosts: str = ""
    """comma-separated names for the header `Host`, or `*`; default: any with keys, else those of this machine"""
    cors_origins: str = ""
    """comma-separated origins whose web pages may use the service, such as `https://app.example`, or `*`"""
    tls_cert: Path | None = None
    """PEM file of the certificate chain; the service then speaks HTTPS"""
    tls_key: Path | None = None
    """PEM file of the private key of the certificate"""
    tls_client_ca: Path | None = None
    """PEM file of the authorities whose certificates clients must present"""
    poll_s: Seconds = 1.0
    """seconds between two scans for new versions"""
    heartbeat_s: Seconds = 30.0
    """seconds between two golden health checks of a model"""
    hang_s: Seconds = 60.0
    """seconds until a computation or load stage counts as hung; a worker with only hung threads exits"""
    playground: bool = True
    """serve the [playground](playground.md) at `/` and `/playground`"""
    access_log: Share = 0.0
    """share of the responses that are logged to standard output, one JSON object a line, with every 5xx; 0: none"""
    triton_metrics: bool = False
    """show the numbers of inference in `/metrics` under Triton's names (`nv_inference_…`) too"""
    revision: str = Field(default="", pattern=r"[\x20-\x7e]{0,100}")
    """revision of the sources that `ekiben_build_info` reports; by default that of the checkout"""
    capture: str = ""
    """folder for a sample of the requests to models, as Parquet; by default nothing is captured"""
    capture_rate: Share = 1.0
    """share of the requests that are captured"""
    capture_fields: str = ""
    """comma-separated top-level fields of requests and answers that are captured; others, and headers, never are"""
    capture_bytes: int = Field(default=1 << 30, ge=1 << 20)
    """disk space of captured requests; the oldest files are deleted first"""
    canary: Share = 0.0
    """share of the requests for a model with a candidate that the candidate answers"""
    shadow: Share = 1.0
    """share of the requests for a model with a candidate that both versions answer, to be compared"""
    max_difference: float = Field(default=0.002, gt=0, lt=1)
    """share of differing answers that stops a candidate; a quarter of it lets it pass"""
    difference_tolerance: float = Field(default=0.05, ge=0)
    """difference of two numbers in answers that counts as none; relative to numbers above 1"""
    drain_s: float = Field(default=1.0, ge=0, le=3600)
    """seconds after SIGTERM in which requests are answered while /readyz says 503; then new ones are refused"""
    grace_s: Seconds = 25.0
    """seconds after SIGTERM until the remaining processes are killed"""

    @field_validator("bundles", mode="before")
    @classmethod
    def _check_not_empty(cls, bundles: object) -> object:
        if bundles == "":
            raise ValueError("expected a folder")
        return bundles

    @field_validator("trusted_proxies")
    @classmethod
    def _check_networks(cls, proxies: str) -> str:
        _parse_networks(proxies)
        return proxies

    @field_validator("ready_when")
    @classmethod
    def _check_names(cls, ready_when: str) -> str:
        names = _split(ready_when)
        if not names:
            raise ValueError("expected all, any or names of models")
        for name in names:
            if not re.fullmatch(MODEL_NAME, name) or (len(names) > 1 and name in {"all", "any"}):
                raise ValueError(f"{name!r} is not the name of a model")
        return ready_when

    @property
    def readiness(self) -> ReadyWhen:
        """The readiness policy."""
        if self.ready_when in {"all", "any"}:
            return ReadyWhen(all_models=self.ready_when == "all")
        return ReadyWhen(names=frozenset(_split(self.ready_when)))

    @field_validator("keys", "tls_cert", "tls_key", "tls_client_ca", mode="before")
    @classmethod
    def _check_file(cls, path: object) -> object:
        if path == "":
            raise ValueError("expected a file")
        return path

    @field_validator("keys")
    @classmethod
    def _check_key_file(cls, keys: Path | None) -> Path | None:
        if keys is not None:
            try:
                read_keys(keys)
            except OSError as error:
                raise ValueError(error.strerror) from error
        return keys

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, hosts: str) -> str:
        for name in _split(hosts):
            if not re.fullmatch(r"\*|[A-Za-z0-9_.-]+|[0-9A-Fa-f:.]+", name):
                raise ValueError(f"expected names or addresses without ports, or *, got {name!r}")
        return hosts

    @property
    def allowed_host_names(self) -> frozenset[str]:
        """The names under which the service answers, in lower case; empty for the default."""
        return frozenset(name.lower().removesuffix(".") for name in _split(self.allowed_hosts))

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: str) -> str:
        for origin in _split(origins):
            if not re.fullmatch(
                r"\*|[a-z][a-z0-9+.-]*://[a-z0-9_.-]+(:[0-9]{1,5})?|[a-z]+://\[[0-9a-f:]+\](:[0-9]+)?", origin
            ):
                expected = "expected origins such as https://app.example:8443, in lower case and without a path, or *"
                raise ValueError(f"{expected}, got {origin!r}")
        return origins

    @property
    def allowed_origins(self) -> frozenset[str]:
        """The origins whose web pages may use the service."""
        return frozenset(_split(self.cors_origins))

    @property
    def tls(self) -> TlsFiles | None:
        """The files of TLS, if the service speaks it."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        return TlsFiles(cert=self.tls_cert, key=self.tls_key, client_ca=self.tls_client_ca)

    def check_address(self, host: str) -> None:
        """Raise SettingsError if the service must not listen on this address: anyone could use it."""
        try:
            is_local = ip_address(host).is_loopback
        except ValueError:
            raise SettingsError(f"expected an IP address to listen on, got {host!r}") from None
        if self.keys is None and not self.allow_anonymous and not is_local:
            remedy = "set EKIBEN_KEYS to a file of keys, or EKIBEN_ALLOW_ANONYMOUS=true to answer everyone"
            raise SettingsError(f"without keys the service listens on 127.0.0.1 or ::1 only, not on {host}: {remedy}")

    @field_validator("trusted_keys")
    @classmethod
    def _check_keys(cls, keys: str) -> str:
        parse_keys(keys)
        return keys

    @property
    def trusted_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The networks of the trusted proxies."""
        return _parse_networks(self.trusted_proxies)

    @property
    def captured_fields(self) -> frozenset[str]:
        """The fields of requests and answers that are captured."""
        return frozenset(_split(self.capture_fields))

    @property
    def limits(self) -> Limits:
        """The limits of the engine."""
        return Limits(
            max_batch_items=self.max_batch_items,
            max_batch_steps=self.max_batch_steps,
            max_queue_items=self.queue_items,
            max_generations=self.max_generations,
            kv_cache_bytes=self.kv_cache_bytes,
            prefix_cache_bytes=self.prefix_cache_bytes,
            timeout_s=self.request_timeout_ms / 1000,
        )


def load_settings() -> Settings:
    """Read the environment; raises SettingsError that names every invalid variable."""
    # pydantic ignores the case of the variables, so the check for misspelt names ignores it too.
    upper = ((key.upper(), value) for key, value in os.environ.items())
    given = {key: value for key, value in upper if key.startswith(PREFIX) and not KUBERNETES.match(key)}
    variables = [_variable(field) for field in Settings.model_fields]
    if unknown := sorted(set(given) - set(variables)):
        close = sorted({match for name in unknown for match in get_close_matches(name, variables, n=1)})
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise SettingsError(f"no such setting: {', '.join(unknown)}{hint}; expected one of {', '.join(variables)}")
    try:
        settings = Settings()
    except ValidationError as error:
        faults = ((_variable(str(fault["loc"][0])), fault["msg"]) for fault in error.errors())
        texts = (f"{name}={given[name]!r}: {reason.removeprefix('Value error, ')}" for name, reason in faults)
        raise SettingsError("; ".join(texts)) from error
    _check_tls(settings)
    return settings


def _check_tls(settings: Settings) -> None:
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise SettingsError("EKIBEN_TLS_CERT and EKIBEN_TLS_KEY: expected both or neither")
    if settings.tls_client_ca is not None and settings.tls is None:
        raise SettingsError("EKIBEN_TLS_CLIENT_CA needs EKIBEN_TLS_CERT and EKIBEN_TLS_KEY")
    if settings.tls is not None:
        try:
            settings.tls.check()
        except ValueError as error:
            raise SettingsError(f"TLS: {error}") from error


def _parse_networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(part) for part in _split(text))


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _variable(field: str) -> str:
    return PREFIX + field.upper()


def settings_table() -> str:
    """Return the settings as a Markdown table."""
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else field.default
        rows.append(f"| `{_variable(name)}` | `{default}` | {field.description} |")
    return "\n".join(rows) + "\n"
