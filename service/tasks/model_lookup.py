"""Finds the model that a request names.

Invariant: a task handler receives only READY models of its own task.
"""

from service.engine.repository.repository import Repository
from service.engine.sessions.model import Model
from service.errors import EkibenError, Fault
from service.families import TaskName
from service.manifest import Manifest
from service.tasks.faults import describe_value

ENDPOINTS: dict[TaskName, str] = {
    "classify": "/classify",
    "sequence-predict": "/sequence-predict",
    "generate": "/generate",
}


def resolve_model(repository: Repository, name: str, task: TaskName) -> Model:
    """Return the READY model of this name and task.

    Raises EkibenError: "unknown-model" lists the models of the task, "wrong-task" names the endpoint of the model.
    """
    try:
        model = repository.get(name)
    except EkibenError as error:
        if error.slug != "unknown-model":
            raise
        known = ", ".join(row["name"] for row in repository.list_models() if row["task"] in {task, None}) or "none yet"
        detail = f"expected one of {known}, got {describe_value(name)}"
        raise EkibenError("unknown-model", f"no such model: {detail}", (_model_fault(detail),)) from None
    check_task(model.manifest, task)
    return model


def check_task(manifest: Manifest, task: TaskName) -> None:
    """Raise EkibenError("wrong-task") if the model serves another task."""
    if manifest.task != task:
        detail = f"{manifest.name} is a {manifest.task} model: ask {ENDPOINTS[manifest.task]}, not {ENDPOINTS[task]}"
        raise EkibenError("wrong-task", detail, (_model_fault(detail),))


def _model_fault(detail: str) -> Fault:
    return Fault(pointer="/model", detail=detail)
