"""Finds the model that a request names. Invariant: a task handler receives only READY models of its own task."""

from typing import get_args

from service.contract.pairs import TaskName
from service.engine.repository.repository import Repository
from service.engine.sessions.model import Model
from service.errors import EkibenError, Fault
from service.tasks.faults import describe_value

ENDPOINTS: dict[TaskName, str] = {task: f"/{task}" for task in get_args(TaskName)}


def resolve_model(repository: Repository, name: str, task: TaskName) -> Model:
    """Return the READY model. Raises EkibenError: unknown-model with the task's models, wrong-task with an endpoint."""
    try:
        model = repository.get(name)
    except EkibenError as error:
        if error.slug != "unknown-model":
            raise
        known = ", ".join(row["name"] for row in repository.list_models() if row["task"] in {task, None})
        got = f"got {describe_value(name)}"
        detail = f"expected one of {known}, {got}" if known else f"{got}; this task has no model yet"
        faults = (Fault(pointer="/model", detail=detail),)
        raise EkibenError("unknown-model", f"no such model: {detail}", faults) from None
    if (actual := model.manifest.task) != task:
        detail = f"{name} is a {actual} model: send the request to {ENDPOINTS[actual]}, not {ENDPOINTS[task]}"
        raise EkibenError("wrong-task", detail, (Fault(pointer="/model", detail=detail),))
    return model
