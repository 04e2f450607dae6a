"""Triton's model repository extension: which models there are, and their loading and unloading by request.

Invariant: an answer without an error means that this worker has done what was asked; the other workers of the service
follow at their next scan of the folder.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from service.engine.context import RequestContext
from service.errors import EkibenError
from service.http.route import ServiceState
from service.http.wire.oip_parameters import Neutral, parse_object, parse_parameters
from service.tasks.faults import fault, json_pointer, type_fault

Document = dict[str, Any]
# Our states -> those of Triton.
STATES = {
    "LOADING": "LOADING",
    "VERIFYING": "LOADING",
    "WARMING": "LOADING",
    "READY": "READY",
    "DRAINING": "UNLOADING",
    "UNLOADED": "UNAVAILABLE",
    "FAILED": "UNAVAILABLE",
}
FLAGS = Neutral((True, False), "no model depends on another one")


def list_index(state: ServiceState, content: Any) -> list[Document]:
    """Return every version that is loaded or known; only READY ones where the request asks for them."""
    fields = parse_object(content, {"ready", "repository_name"}, "")
    only_ready = fields.get("ready") or False
    if type(only_ready) is not bool:
        raise type_fault("/ready", "true or false", only_ready)
    if fields.get("repository_name") not in (None, ""):
        raise type_fault("/repository_name", "no name, because there is one repository", fields["repository_name"])
    entries: list[Document] = []
    for row in state.repository.list_models():
        entries.append(_entry(row["name"], row["version"], row["state"], row["reason"]))
        if row["next"]:
            entries.append(_entry(row["name"], row["next"]["version"], row["next"]["state"], row["next"]["reason"]))
        if row["state"] != "DRAINING":
            entries += [_entry(row["name"], version, "DRAINING", None) for version in row["draining"]]
    return [entry for entry in entries if entry["state"] == "READY" or not only_ready]


def _entry(name: str, version: str | None, state: str, reason: str | None) -> Document:
    return {"name": name, "version": version or "", "state": STATES[state], "reason": reason or ""}


async def load_model(state: ServiceState, name: str, content: Any, context: RequestContext) -> None:
    """Load the version that `current` names, unless it serves already. Raises EkibenError.

    A load that takes longer than the deadline of the request goes on.
    """
    fields = parse_object(content, {"parameters"}, "")
    parameters = fields.get("parameters")
    for parameter in parameters if type(parameters) is dict else ():
        detail = "not supported: a bundle has its own files and configuration; add a version to its folder instead"
        raise fault(f"/parameters{json_pointer(parameter)}", detail)
    parse_parameters(fields, set(), "", {})
    await _until_deadline(state.repository.load, name, context)


async def unload_model(state: ServiceState, name: str, content: Any, context: RequestContext) -> None:
    """Stop serving the model until it is loaded again; requests that it has are answered. Raises EkibenError."""
    parse_parameters(parse_object(content, {"parameters"}, ""), set(), "", {"unload_dependents": FLAGS})
    await _until_deadline(state.repository.unload, name, context)


async def _until_deadline(action: Callable[..., None], name: str, context: RequestContext) -> None:
    remaining_s = max(context.deadline - time.monotonic(), 0.0)
    done = asyncio.ensure_future(asyncio.to_thread(action, name, timeout_s=remaining_s))
    done.add_done_callback(lambda future: future.cancelled() or future.exception())  # it may end after this request
    try:
        await asyncio.wait_for(asyncio.shield(done), remaining_s)
    except TimeoutError:
        raise EkibenError("timeout", f"{name}: it goes on beyond the deadline of this request") from None
