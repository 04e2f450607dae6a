"""The BentoML service, and the only module that knows BentoML.

`@bentoml.api` declares each endpoint, so that BentoML's OpenAPI page, clients and tools know it; over HTTP the same
handler is reached through `Front`, which stands before the framework. Invariant: both doors give the same answer, and
the service says that it is ready only after every model has proved itself on this device.
"""

import gc
import os

import bentoml
from _bentoml_sdk import Service
from bentoml import get_current_service  # its package looks it up anew at every mention

from service.engine.process.memory import tune_malloc
from service.engine.repository.repository import Repository
from service.engine.runner import Runner
from service.engine.sessions.device import resolve_device
from service.http.foreign import Translated
from service.http.front import Front
from service.http.metrics import Sharing
from service.http.traffic import Traffic
from service.settings import load_settings
from service.tasks.classify import ClassifyAnswer, ClassifyRequest, classify
from service.tasks.generate import GenerateAnswer, GenerateRequest, generate
from service.tasks.limits import find
from service.tasks.replay import replay_requests
from service.tasks.sequence_predict import SequencePredictAnswer, SequencePredictRequest, sequence_predict

BENTOML_TIMEOUT_S = 40  # its timer lives on after the answer, so not much longer than ours


@bentoml.service(
    name="ekiben",
    workers=1,
    traffic={"timeout": BENTOML_TIMEOUT_S},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
)
class Ekiben:
    """Trained models with proof that what is served is what was trained.

    The models and their names are listed at GET /models.
    """

    def __init__(self) -> None:
        tune_malloc()
        settings = load_settings()
        self.max_body_bytes = settings.max_body_bytes
        self.draining = False
        self.traffic = Traffic()
        self.sharing: Sharing | None = None
        threads = min(settings.threads, len(os.sched_getaffinity(0)))  # the host may have given this worker one core
        self.runner = Runner(threads=threads, limits=settings.limits)
        self.repository = Repository(
            settings.bundles,
            device=resolve_device(settings.device),
            intra_op_threads=settings.intra_op_threads,
            poll_s=settings.poll_s,
            health_check_s=settings.heartbeat_s,
            hang_s=settings.hang_s,
            max_parallel_loads=settings.threads,
            planner=self.runner,
        )
        gc.collect()
        gc.freeze()  # what was imported stays: walking it took the collector 50 ms, in the midst of requests
        gc.set_threshold(10_000, 20, 20)  # a request leaves no cycles behind
        self.repository.start(replay_requests)

    @bentoml.on_shutdown
    def close(self) -> None:
        self.repository.close()
        self.runner.close()

    def __is_ready__(self) -> bool:
        return self.repository.ready

    @bentoml.api
    async def classify(self, request: ClassifyRequest, /) -> ClassifyAnswer:
        """Pictures in, labels out."""
        model = find(self.repository, request.model, "classify")
        return ClassifyAnswer.model_validate(await classify(model, self.runner, request))

    @bentoml.api(route="/sequence-predict")
    async def sequence_predict(self, request: SequencePredictRequest, /) -> SequencePredictAnswer:
        """Texts or series of numbers in, up to the model's limits.max_steps, labels out."""
        model = find(self.repository, request.model, "sequence-predict")
        return SequencePredictAnswer.model_validate(await sequence_predict(model, self.runner, request))

    @bentoml.api
    async def generate(self, request: GenerateRequest, /) -> GenerateAnswer:
        """A prompt is continued, or pictures are drawn."""
        model = find(self.repository, request.model, "generate")
        return GenerateAnswer.model_validate(await generate(model, self.runner, request))


class InFront(Service):
    """The service with our routes outermost, whoever hosts it: what they answer costs nothing of the framework."""

    __slots__ = ()

    def to_asgi(self, is_main: bool = True) -> Front:
        self.add_asgi_middleware(Translated)  # its TimeoutMiddleware never answers what raised behind it
        return Front(super().to_asgi(is_main), host=running)


Ekiben.__class__ = InFront  # type: ignore[method-assign]  # the decorator has made it a Service


def application() -> Front:
    """The service as an application; one in a process."""
    front: Front = Ekiben.to_asgi()  # type: ignore[attr-defined]
    return front


def running() -> Ekiben:
    """The service that the application made when it started."""
    service: Ekiben = get_current_service()
    return service
