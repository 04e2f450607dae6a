"""Finds the model that a request names. Invariant: a task handler receives only READY models that its task serves."""

from typing import Any, get_args

from service.contract.pairs import TaskName
from service.engine.repository.repository import Repository
from service.engine.sessions.model import Model
from service.errors import EkibenError, Fault
from service.manifest import Manifest
from service.tasks.faults import describe_value

ENDPOINTS: dict[TaskName, str] = {task: f"/{task}" for task in get_args(TaskName)}


def resolve_model(repository: Repository, name: str, task: TaskName) -> Model:
    """Return the READY model. Raises EkibenError: unknown-model with the task's models, wrong-task with an endpoint."""
    try:
        model = repository.get(name)
    except EkibenError as error:
        if error.slug != "unknown-model":
            raise
        known = ", ".join(row["name"] for row in repository.list_models() if _may_serve(task, row))
        got = f"got {describe_value(name)}"
        detail = f"expected one of {known}, {got}" if known else f"{got}; this task has no model yet"
        faults = (Fault(pointer="/model", detail=detail),)
        raise EkibenError("unknown-model", f"no such model: {detail}", faults) from None
    if not serves(task, model.manifest):
        actual = model.manifest.task
        detail = f"{name} is a {actual} model: send the request to {ENDPOINTS[actual]}, not {ENDPOINTS[task]}"
        raise EkibenError("wrong-task", detail, (Fault(pointer="/model", detail=detail),))
    return model


def resolve_language_model(repository: Repository, name: str) -> Model:
    """Return the READY model as `resolve_model`; a model that generates images is a wrong-task, too."""
    model = resolve_model(repository, name, "generate")
    check_language_model(model)
    return model


def check_language_model(model: Model) -> None:
    """Raise EkibenError wrong-task unless the model generates texts."""
    manifest = model.manifest
    if manifest.head.kind != "language-model":
        detail = f"{manifest.name} generates no texts: send the request to {ENDPOINTS[manifest.task]}"
        raise EkibenError("wrong-task", detail, (Fault(pointer="/model", detail=detail),))


def serves(task: TaskName, manifest: Manifest) -> bool:
    """Whether a task serves a model: `predict` serves all but language models, each other task its own pairs."""
    if task == "predict":
        return manifest.head.kind != "language-model"
    return manifest.task == task


def _may_serve(task: TaskName, row: dict[str, Any]) -> bool:
    """Whether a task may serve the model of this summary, whose manifest may not be known yet."""
    if row["task"] is None:
        return True
    return not row["pair"].endswith("language-model") if task == "predict" else row["task"] == task
