"""Finds the model that a request names.

Invariant: a task handler receives only READY models of its own task.
"""

from typing import get_args

from service.engine.repository.repository import Repository
from service.engine.sessions.model import Model
from service.errors import EkibenError, Fault
from service.families import TaskName
from service.tasks.faults import describe_value

ENDPOINTS: dict[TaskName, str] = {task: f"/{task}" for task in get_args(TaskName)}


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
        faults = (Fault(pointer="/model", detail=detail),)
        raise EkibenError("unknown-model", f"no such model: {detail}", faults) from None
    actual = model.manifest.task
    if actual != task:
        detail = f"{name} is a {actual} model: ask {ENDPOINTS[actual]}, not {ENDPOINTS[task]}"
        raise EkibenError("wrong-task", detail, (Fault(pointer="/model", detail=detail),))
    return model
