"""The registry of tasks: what each endpoint reads, and what answers it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from service.bundle import Task as TaskName
from service.tasks.body import Body, Document
from service.tasks.classify import ClassifyRequest, classify
from service.tasks.generate import GenerateRequest, generate
from service.tasks.sequence_predict import SequencePredictRequest, sequence_predict


@dataclass(frozen=True, kw_only=True)
class Task:
    """`handle(model, runner, request)` answers a request that was read as `request`."""

    request: type[Body]
    handle: Callable[..., Awaitable[Document]]


TASKS: dict[TaskName, Task] = {
    "classify": Task(request=ClassifyRequest, handle=classify),
    "sequence-predict": Task(request=SequencePredictRequest, handle=sequence_predict),
    "generate": Task(request=GenerateRequest, handle=generate),
}
