"""The peers: how each is started, what it speaks, and with how many workers.

A peer is `servers/MODULE.py`, run in its own environment. Ekiben runs in this checkout's environment, by a command with
places for {python}, {port}, {workers} and {bundles}.
"""

from dataclasses import dataclass, field
from typing import Literal

Body = Literal["json", "binary"]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """`forms`: body -> the name of its form (bodies.FORMS); one for all models or one for each."""

    forms: dict[Body, str | dict[str, str]]
    environment: str = ""  # requirements/ENVIRONMENT.txt
    module: str = ""
    variant: str = ""
    command: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)  # environment variables
    workers: tuple[int, ...] = (1, 2)
    check: Literal["answers", "status"] = "answers"

    def form(self, body: Body, model: str) -> str | None:
        form = self.forms.get(body)
        return form.get(model) if isinstance(form, dict) else form


EKIBEN = {"EKIBEN_BUNDLES": "{bundles}"}
NATIVE = {"mnist-cnn": "ekiben", "news-lstm": "ekiben"}

HOST = ("{python}", "-m", "service", "--port", "{port}", "--workers", "{workers}")

PEERS: dict[str, Peer] = {
    "ekiben": Peer(command=HOST, settings=EKIBEN, forms={"json": NATIVE, "binary": "v2-binary"}),
    "ekiben-v2": Peer(command=HOST, settings=EKIBEN, forms={"json": "v2-json"}),
    "ekiben-bentoml": Peer(
        command=("{python}", "-m", "bentoml", "serve", "service.app:Ekiben", "--host", "127.0.0.1", "--port", "{port}"),
        settings=EKIBEN,
        forms={"json": NATIVE, "binary": "v2-binary"},
        workers=(1,),
    ),
    "ekiben-bentoml-v2": Peer(
        command=("{python}", "-m", "bentoml", "serve", "service.app:Ekiben", "--host", "127.0.0.1", "--port", "{port}"),
        settings=EKIBEN,
        forms={"json": "v2-json"},
        workers=(1,),
    ),
    "triton": Peer(
        environment="triton", module="triton", forms={"json": "v2-json-columns", "binary": "v2-binary-columns"}
    ),
    "torchserve": Peer(
        environment="torchserve", module="torchserve", forms={"json": "torchserve", "binary": "torchserve-raw"}
    ),
    "fastapi": Peer(environment="fastapi", module="fastapi", forms={"json": "plain", "binary": "raw-route"}),
    "kserve": Peer(environment="kserve", module="kserve", forms={"json": "v1", "binary": "v2-binary"}),
    "mlserver": Peer(environment="mlserver", module="mlserver", forms={"json": "v2-json"}),
    "litserve": Peer(environment="litserve", module="litserve", forms={"json": "plain"}),
    "ray": Peer(
        environment="ray",
        module="ray",
        forms={"json": "plain", "binary": "raw"},
    ),
    "ray-batch": Peer(
        environment="ray",
        module="ray",
        variant="batch",
        forms={"json": "plain", "binary": "raw"},
        workers=(1,),
    ),
    "bentoml": Peer(environment="bentoml", module="bentoml", forms={"json": "rows"}),
    "bentoml-batch": Peer(environment="bentoml", module="bentoml", variant="batch", forms={"json": "rows"}),
    "limit-granian": Peer(environment="limits", module="granian", forms={"json": "plain", "binary": "raw"}),
    "limit-noop": Peer(environment="limits", module="noop", forms={"json": "plain", "binary": "raw"}, check="status"),
    "limit-ort": Peer(environment="limits", module="raw_ort", forms={"binary": "raw"}),
}
