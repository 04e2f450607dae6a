"""The registry of tasks: the request type and the handler of each endpoint."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from service.contract.pairs import TaskName
from service.tasks.body import JsonObject, RequestBody
from service.tasks.classify import ClassifyRequest, classify
from service.tasks.generate import GenerateRequest, generate
from service.tasks.predict import PredictRequest, predict
from service.tasks.sequence_predict import SequencePredictRequest, sequence_predict


@dataclass(frozen=True, kw_only=True)
class Task:
    """`handle(model, runner, request, context)` answers a request of the type `request`."""

    request: type[RequestBody]
    handle: Callable[..., Awaitable[JsonObject]]


TASKS: dict[TaskName, Task] = {
    "classify": Task(request=ClassifyRequest, handle=classify),
    "sequence-predict": Task(request=SequencePredictRequest, handle=sequence_predict),
    "generate": Task(request=GenerateRequest, handle=generate),
    "predict": Task(request=PredictRequest, handle=predict),
}
