"""The BentoML service, and the only module that imports BentoML, private parts included.

`@bentoml.api` declares each endpoint, so that BentoML's clients and tools know it; over HTTP the router
calls the same task handler in front of the framework. Invariant: both ways give the same answer, and the service is
ready only after every model has passed its checks on this device.
"""

import logging
import os
import socket
import ssl
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import bentoml
import click
from _bentoml_impl.client import proxy2
from _bentoml_sdk import Service
from _bentoml_sdk.service.config import SSLSchema
from bentoml import get_current_service, server_context  # its package looks them up anew at every mention
from bentoml._internal.configuration.containers import BentoMLContainer

from service.contract.pairs import TaskName
from service.engine.process.desired_models import DesiredModels
from service.engine.process.identity import shared_folder
from service.engine.process.port import claim_port
from service.engine.process.zygote import shared_zygote
from service.engine.repository.load_records import LoadRecords, warn_unshared
from service.engine.repository.loader import Loader
from service.engine.repository.prover import Prover
from service.engine.repository.repository import Repository
from service.engine.repository.scan import allows_tf32
from service.engine.runner import Runner
from service.engine.sessions.device import check_device, resolve_device
from service.engine.verification.gpu_bound import GpuBounds
from service.errors import DeviceError
from service.http.access.policy import access_policy
from service.http.body_budget import BodyBudget
from service.http.connections import ConnectionWatch
from service.http.openapi.document import build_document
from service.http.openapi.schemas import Schema
from service.http.rollout.traffic import Rollout
from service.http.router import Router, served_routes
from service.http.telemetry.multiprocess import MultiprocessMetrics
from service.http.telemetry.observers import open_observers
from service.http.telemetry.request_metrics import RequestMetrics
from service.http.uvicorn.protocol import install
from service.http.wire.framework_errors import ErrorTranslationMiddleware
from service.settings import Settings, SettingsError, load_settings
from service.tasks import TASKS
from service.tasks.body import JsonObject, RequestBody
from service.tasks.classify import ClassifyAnswer, ClassifyRequest
from service.tasks.generate import GenerateAnswer, GenerateRequest
from service.tasks.model_lookup import resolve_model
from service.tasks.predict import PredictAnswer, PredictRequest
from service.tasks.replay import replay_requests
from service.tasks.sequence_predict import SequencePredictAnswer, SequencePredictRequest
from service.tls_files import TlsFiles
from service.tuning import max_threads, tune_gc, tune_malloc

log = logging.getLogger(__name__)


@bentoml.service(
    name="ekiben",
    workers=1,
    http={"host": "127.0.0.1"},
    traffic={"timeout": 40},  # s; BentoML's timer outlives the answer, so little longer than our default timeout
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
)
class Ekiben:
    """Trained models with proof that what is served is what was trained.

    The models and their names are listed at GET /models.
    """

    host_folder: ClassVar[Path | None] = None  # of all workers of the host, set by a worker of `python -m service`
    num_workers: ClassVar[int | None] = None  # of the host, set there, too

    def __init__(self) -> None:
        zygote = shared_zygote()
        with suppress(OSError):  # loading tries again
            zygote.start()  # it imports meanwhile
        tune_malloc()
        settings = load_settings()
        if settings.grpc_port and server_context.worker_index is not None:
            log.error("EKIBEN_GRPC_PORT=%d is not served: python -m service alone has it", settings.grpc_port)
        self.max_body_bytes = settings.max_body_bytes
        self.bodies = BodyBudget(settings.body_budget_bytes, settings.max_body_bytes, settings.trusted_networks)
        self.trusted_proxies = settings.trusted_networks
        self.draining = self.closing = False
        self.has_playground = settings.playground
        observers = open_observers(
            access_log=settings.access_log,
            trusted_proxies=settings.trusted_networks,
            capture=settings.capture,
            capture_rate=settings.capture_rate,
            capture_fields=settings.captured_fields,
            capture_bytes=settings.capture_bytes,
        )
        self.request_metrics = RequestMetrics(
            observers, has_triton_names=settings.triton_metrics, revision=settings.revision
        )
        self.multiprocess_metrics: MultiprocessMetrics | None = None
        # A worker may have one core, or a share of the CPU limit of a container.
        threads = min(settings.threads, max_threads(self.num_workers or 1))
        self.runner = Runner(threads=threads, limits=settings.limits)
        device = resolve_device(settings.device, allow_tf32=allows_tf32(settings.bundles))
        # A health check runs beside the batches.
        bounds = GpuBounds(num_runs=threads + 1, kv_cache_bytes=settings.kv_cache_bytes)
        loader = Loader(
            device=device,
            intra_op_threads=settings.intra_op_threads,
            timeout_s=settings.hang_s,
            replay_requests=replay_requests,
            planner=self.runner,
            limits=settings.limits,
            prepack=settings.prepack,
            gpu_bounds=bounds if device == "cuda" else None,
        )
        folder = self.host_folder or _folder_of_bentoml()
        records = LoadRecords(folder)
        self.repository = Repository(
            settings.bundles,
            loader,
            prover=Prover(zygote=zygote, loader=loader, records=records, memory_bytes=settings.load_memory_bytes),
            desired=DesiredModels(folder),
            ready_when=settings.readiness,
            poll_s=settings.poll_s,
            health_check_s=settings.heartbeat_s,
            max_parallel_loads=settings.threads,
            tally_folder=folder,
            max_difference=settings.max_difference,
        )
        tune_gc()
        self.repository.start()

    @bentoml.on_deployment
    def check_start() -> None:
        """End `bentoml serve` with one line if it lacks a temporary folder, its device or the port."""
        try:
            tempfile.gettempdir()
        except FileNotFoundError as error:
            sys.exit(f"bentoml serve needs a temporary folder, python -m service does not: {error.strerror}")
        try:
            check_device(load_settings().device)
        except DeviceError as error:
            sys.exit(" ".join(str(error).split()))
        command = click.get_current_context(silent=True)
        if command is None or "port" not in command.params:
            return
        host = str(command.params["host"] or BentoMLContainer.http.host.get())
        port = int(command.params["port"] or BentoMLContainer.http.port.get())
        with suppress(ValueError):  # BentoML names a host that is not an address
            try:
                claim_port(host, port).close()
            except OSError as error:
                sys.exit(f"--host {host} --port {port}: {error.strerror}")

    @bentoml.on_shutdown
    def close(self) -> None:
        self.repository.close()
        self.runner.close()
        for observer in self.request_metrics.observers:
            observer.close()
        shared_zygote().close()

    def __is_ready__(self) -> bool:
        return self.repository.ready

    @bentoml.api
    async def classify(self, request: ClassifyRequest, /) -> ClassifyAnswer:
        """Classify images or rows of a table."""
        return ClassifyAnswer.model_validate(await self._answer("classify", request))

    @bentoml.api(route="/sequence-predict")
    async def sequence_predict(self, request: SequencePredictRequest, /) -> SequencePredictAnswer:
        """Classify texts or series of numbers of up to the model's limits.max_steps steps."""
        return SequencePredictAnswer.model_validate(await self._answer("sequence-predict", request))

    @bentoml.api
    async def generate(self, request: GenerateRequest, /) -> GenerateAnswer:
        """Continue a prompt, or draw images."""
        return GenerateAnswer.model_validate(await self._answer("generate", request))

    @bentoml.api
    async def predict(self, request: PredictRequest, /) -> PredictAnswer:
        """Answer with any model but a language model: what its reader takes, what its head answers.

        GET /models/NAME shows the fields, the JSON schemas and an example of one model.
        """
        return PredictAnswer.model_validate(await self._answer("predict", request))

    async def _answer(self, task: TaskName, request: RequestBody) -> JsonObject:
        model = resolve_model(self.repository, request.model, task)
        return await TASKS[task].handle(model, self.runner, request, self.runner.new_context())


def _folder_of_bentoml() -> Path | None:
    """The folder of all workers of `bentoml serve`; None in a process that it did not start."""
    if server_context.worker_index is None:
        return None
    folder = shared_folder(os.getppid())
    if folder is None:
        warn_unshared("there is no private temporary folder")
    return folder


class NoTemporaryFolder:
    """In place of `tempfile` for BentoML's client of the service itself, which downloads no files into its folder."""

    class TemporaryDirectory:
        name = ""

        def __init__(self, *, prefix: str) -> None: ...

        def cleanup(self) -> None: ...


class RoutedService(Service):
    """The service with the router in front: what the router answers costs nothing of the framework."""

    __slots__ = ()

    @property
    def openapi_spec(self) -> Schema:
        """The document of all routes, without models: `bentoml build` packs it."""
        return build_document(served_routes())

    def to_asgi(self, is_main: bool = True) -> Router:
        try:
            tempfile.gettempdir()
        except FileNotFoundError:
            proxy2.tempfile = NoTemporaryFolder
        # BentoML's TimeoutMiddleware never responds to an exception that is raised behind it.
        self.add_asgi_middleware(ErrorTranslationMiddleware)
        settings = load_settings()
        folder = None if self.inner.num_workers == 1 else self.inner.host_folder or _folder_of_bentoml()
        rollout = Rollout(canary=settings.canary, shadow=settings.shadow, tolerance=settings.difference_tolerance)
        access = access_policy(settings, folder)
        router = Router(super().to_asgi(is_main), state=running, access=access, rollout=rollout)
        install(settings.keep_alive_s, watch_connections(router, settings).start)
        return router

    def inject_config(self) -> None:
        """Configure BentoML. Ends the process with one line if a setting is invalid, or if strangers could connect."""
        try:
            settings = load_settings()
            if settings.tls is not None:
                self.config["ssl"] = _ssl_config(settings.tls)
            super().inject_config()
            host = _host_of_bentoml()
            if host is not None:
                settings.check_address(host)
        except SettingsError as error:
            sys.exit(" ".join(str(error).split()))


def _ssl_config(tls: TlsFiles) -> SSLSchema:
    config: SSLSchema = {"enabled": True, "certfile": str(tls.cert.absolute()), "keyfile": str(tls.key.absolute())}
    # For TLS 1.2, the ciphers of granian; BentoML's default leaves none that clients accept.
    config["ciphers"] = "ECDHE+AESGCM:ECDHE+CHACHA20"
    if tls.client_ca is not None:
        config |= {"ca_certs": str(tls.client_ca.absolute()), "cert_reqs": int(ssl.CERT_REQUIRED)}
    return config


def _host_of_bentoml() -> str | None:
    """The address that a command of BentoML's listens on, or is about to; None in a process without such a command."""
    command = click.get_current_context(silent=True)
    if command is None:
        return None
    if command.params.get("fd") is not None:  # a worker, which inherits a socket
        with socket.socket(fileno=os.dup(command.params["fd"])) as listening:
            return str(listening.getsockname()[0])
    if "host" not in command.params:
        return None
    return str(command.params["host"] or BentoMLContainer.http.host.get())


def watch_connections(router: Router, settings: Settings) -> ConnectionWatch:
    """Return the watch of the connections of this process, which the host starts."""
    return ConnectionWatch(
        router.clients_in_flight,
        keep_alive_s=settings.keep_alive_s,
        max_connections=settings.max_connections,
        max_client_connections=settings.max_client_connections,
        trusted_proxies=settings.trusted_networks,
    )


Ekiben.__class__ = RoutedService  # type: ignore[method-assign]  # the decorator has turned the class into a Service


def running() -> Ekiben:
    """The service that the application created when it started."""
    return get_current_service()
