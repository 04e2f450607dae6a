"""What one request may ask of one model, and the model that it asks for.

Invariant: a handler meets only a model of its own task and a list of 1 to `max_items` items.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from service.bundle import Manifest, Task
from service.engine.repository.repository import Repository
from service.engine.sessions.model import Model
from service.errors import EkibenError, Fault
from service.tasks.body import describe, invalid, wrong

ENDPOINTS: dict[Task, str] = {
    "classify": "/classify",
    "sequence-predict": "/sequence-predict",
    "generate": "/generate",
}


def find(repository: Repository, name: str, task: Task) -> Model:
    """The model of this name, if it is READY and of this task.

    Raises EkibenError: unknown-model lists the models of the task, wrong-task names the endpoint that serves the model.
    """
    try:
        model = repository.get(name)
    except EkibenError as error:
        if error.slug != "unknown-model":
            raise
        known = ", ".join(row["name"] for row in repository.list_models() if row["task"] in {task, None}) or "none yet"
        detail = f"expected one of {known}, got {describe(name)}"
        raise EkibenError("unknown-model", f"no such model: {detail}", (_at_model(detail),)) from None
    check_task(model.manifest, task)
    return model


def check_task(manifest: Manifest, task: Task) -> None:
    """Raises EkibenError("wrong-task")."""
    if manifest.task != task:
        detail = f"{manifest.name} is a {manifest.task} model: ask {ENDPOINTS[manifest.task]}, not {ENDPOINTS[task]}"
        raise EkibenError("wrong-task", detail, (_at_model(detail),))


def _at_model(detail: str) -> Fault:
    return Fault(pointer="/model", detail=detail)


def check_items(items: Sequence[Any], manifest: Manifest, where: str) -> None:
    """1 to `limits.max_items` items."""
    if not 1 <= len(items) <= manifest.limits.max_items:
        raise wrong(where, f"1 to {manifest.limits.max_items} items", list(items))


def check_unused(fields: Iterable[str], given: set[str], manifest: Manifest, wanted: str) -> None:
    """Raises for fields that this model has no use for, rather than ignore them."""
    unused = [field for field in fields if field in given]
    if unused:
        raise invalid(
            [
                Fault(pointer=f"/{field}", detail=f"not a field for {manifest.name}, which takes {wanted}")
                for field in unused
            ]
        )
