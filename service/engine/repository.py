"""The models of a service: what each is, which state it is in, and why.

LOADING -> VERIFYING -> READY, or FAILED with a reason in plain words. READY means that on this device the session gave
every golden case's answer and the task code gave every request case's. The repository is ready when it has at least one
model and all of them are READY: an empty one is not.
"""

import asyncio
import inspect
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer

from service.bundle import Bundle, Manifest, RequestCase, current_version, open_bundle
from service.engine.device import Device
from service.engine.parity import replay
from service.engine.session import Session
from service.errors import BundleError, DeviceError, EkibenError

State = Literal["LOADING", "VERIFYING", "READY", "FAILED"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Model:
    """What a task needs to answer with one version of a model."""

    manifest: Manifest
    session: Session
    tokenizer: Tokenizer | None


ReplayRequests = Callable[[Model, Sequence[RequestCase]], Awaitable[None] | None]


@dataclass(frozen=True, kw_only=True)
class Status:
    """One model at one moment. `model` is set once READY, `manifest` once the bundle was opened."""

    name: str
    state: State = "LOADING"
    reason: str | None = None
    manifest: Manifest | None = None
    model: Model | None = None
    provider: str | None = None
    measured: Mapping[str, float] | None = None  # output -> largest difference to PyTorch, here, at load
    load_s: float | None = None


class Repository:
    """Reads are safe from any thread: a status is replaced as a whole, never changed."""

    def __init__(self, root: Path, *, device: Device, intra_op_threads: int = 1) -> None:
        self.root = root
        self.device: Device = device
        self._intra_op_threads = intra_op_threads
        self._statuses: dict[str, Status] = {}
        self._trouble: str | None = f"{root} was not looked at yet"
        self._closing = threading.Event()
        self._loader: threading.Thread | None = None

    def start(self, replay_requests: ReplayRequests) -> None:
        """Find the bundles now, load them in the background."""
        self._scan()
        self._loader = threading.Thread(target=self._load_found, args=(replay_requests,), name="loader", daemon=True)
        self._loader.start()

    def load_all(self, replay_requests: ReplayRequests) -> None:
        """Find and load all bundles before returning; not to be called from a running event loop."""
        self._scan()
        self._load_found(replay_requests)

    def close(self) -> None:
        """Stop loading after the model at hand."""
        self._closing.set()
        if self._loader is not None:
            self._loader.join()

    @property
    def ready(self) -> bool:
        return self.not_ready_because() is None

    def not_ready_because(self) -> str | None:
        """Why this repository is not ready, or None if it is."""
        waiting = [
            status.reason or f"{status.name} is {status.state}"
            for status in list(self._statuses.values())
            if status.state != "READY"
        ]
        return self._trouble or "; ".join(waiting) or None

    def get(self, name: str) -> Model:
        """Raises EkibenError: unknown-model, or not-ready with the reason."""
        status = self._status(name)
        if status.model is None:
            raise EkibenError("not-ready", status.reason or f"{name} is {status.state}")
        return status.model

    def describe(self) -> list[dict[str, Any]]:
        """Every model in brief, as JSON values."""
        return [_brief(status) for status in list(self._statuses.values())]

    def describe_model(self, name: str) -> dict[str, Any]:
        """One model in full, as JSON values. Raises EkibenError unknown-model."""
        status = self._status(name)
        return {**_brief(status), "device": self.device, **_details(status)}

    def _status(self, name: str) -> Status:
        status = self._statuses.get(name)
        if status is None:
            raise EkibenError("unknown-model", f"no model {name!r}; there are: {', '.join(self._statuses) or 'none'}")
        return status

    def _scan(self) -> None:
        try:
            names = sorted(path.name for path in self.root.iterdir() if path.is_dir() and path.name[0] != ".")
        except OSError as error:
            self._trouble = f"cannot read the folder of bundles {self.root}: {error.strerror}"
        else:
            self._trouble = None if names else f"the folder of bundles {self.root} is empty: export a model first"
            self._statuses = {name: Status(name=name) for name in names}
        if self._trouble:
            log.error("not ready: %s", self._trouble)

    def _load_found(self, replay_requests: ReplayRequests) -> None:
        for name in list(self._statuses):
            if self._closing.is_set():
                return
            try:
                self._load(name, replay_requests)
            except Exception as error:  # whatever a bundle does, the other models are loaded
                expected = isinstance(error, BundleError | DeviceError)
                reason = str(error) if expected else f"{name}: loading failed: {type(error).__name__}: {error}"
                log.error("%s FAILED: %s", name, reason, exc_info=None if expected else error)
                self._set(name, state="FAILED", reason=reason)

    def _load(self, name: str, replay_requests: ReplayRequests) -> None:
        began = time.perf_counter()
        bundle = open_bundle(self.root / name / current_version(self.root / name))
        self._set(name, manifest=bundle.manifest)
        model = self._model(bundle)
        self._set(name, state="VERIFYING", provider=model.session.provider)
        measured = replay(model.session, bundle)
        self._set(name, measured=measured)
        _wait_for(replay_requests(model, bundle.requests))
        self._set(name, state="READY", model=model, load_s=time.perf_counter() - began)
        worst = max(measured.values())
        log.info("%s %s READY on %s, %.1e from PyTorch", name, bundle.manifest.version, model.session.provider, worst)

    def _model(self, bundle: Bundle) -> Model:
        session = Session(bundle.model, manifest=bundle.manifest, device=self.device, threads=self._intra_op_threads)
        return Model(manifest=bundle.manifest, session=session, tokenizer=_tokenizer(bundle))

    def _set(self, name: str, **changes: Any) -> None:
        self._statuses[name] = replace(self._statuses[name], **changes)


def _tokenizer(bundle: Bundle) -> Tokenizer | None:
    if bundle.tokenizer is None:
        return None
    where = f"{bundle.manifest.name}/{bundle.manifest.version}: tokenizer.json"
    try:
        tokenizer = Tokenizer.from_str(bundle.tokenizer)
    except Exception as error:  # tokenizers raises bare Exception
        raise BundleError(f"{where}: {error}") from error
    highest = max(tokenizer.get_vocab().values(), default=-1)
    vocabulary: int | None = getattr(bundle.manifest.parameters, "vocabulary", None)
    if vocabulary is not None and highest >= vocabulary:
        raise BundleError(f"{where}: it gives token ids up to {highest}, the model knows {vocabulary}")
    return tokenizer


def _wait_for(result: Awaitable[None] | None) -> None:
    if inspect.isawaitable(result):
        asyncio.run(_awaited(result))


async def _awaited(result: Awaitable[None]) -> None:
    await result


def _brief(status: Status) -> dict[str, Any]:
    manifest = status.manifest
    return {
        "name": status.name,
        "state": status.state,
        "reason": status.reason,
        "version": manifest and manifest.version,
        "task": manifest and manifest.task,
        "family": manifest and manifest.parameters.family,
        "summary": manifest and manifest.summary,
        "provider": status.provider,
    }


def _details(status: Status) -> dict[str, Any]:
    if status.manifest is None:
        return {}
    content = status.manifest.model_dump(mode="json")
    measured = status.measured or {}
    return {
        "labels": content["parameters"].get("labels"),
        "parameters": {key: value for key, value in content["parameters"].items() if key not in {"family", "labels"}},
        "inputs": content["inputs"],
        "outputs": content["outputs"],
        "limits": content["limits"],
        "parity": {
            output: {
                "atol": tolerance["atol"],
                "rtol": tolerance["rtol"],
                "measured_at_export": tolerance["measured"],
                "measured_here": measured.get(output),
            }
            for output, tolerance in content["tolerance"].items()
        },
        "invariance": content["invariance"],
        "provenance": content["provenance"],
        "load_s": status.load_s,
    }
