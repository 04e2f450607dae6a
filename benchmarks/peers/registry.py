"""The peers: how each is started, which wire formats it accepts, and with how many workers it is measured.

A peer is `servers/MODULE.py`, which runs in an environment of its own. Ekiben runs in the environment of this checkout,
by a command with the placeholders {python}, {port}, {workers} and {bundles}.
"""

from dataclasses import dataclass, field
from typing import Literal

Body = Literal["json", "binary"]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """`formats` has, by body, the name of a format in `bodies.FORMATS`, for all models or by model."""

    formats: dict[Body, str | dict[str, str]]
    environment: str = ""  # name of a file in requirements/
    module: str = ""
    variant: str = ""
    command: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)  # environment variables
    workers: tuple[int, ...] = (1, 2)
    check: Literal["answers", "status"] = "answers"

    def format_name(self, body: Body, model: str) -> str | None:
        name = self.formats.get(body)
        return name.get(model) if isinstance(name, dict) else name


EKIBEN_SETTINGS = {"EKIBEN_BUNDLES": "{bundles}"}
NATIVE_FORMATS = {"mnist-cnn": "ekiben", "news-lstm": "ekiben"}

GRANIAN_COMMAND = ("{python}", "-m", "service", "--port", "{port}", "--workers", "{workers}")
BENTOML_COMMAND = (
    "{python}", "-m", "bentoml", "serve", "service.app:Ekiben", "--host", "127.0.0.1", "--port", "{port}",
)  # fmt: skip

PEERS: dict[str, Peer] = {
    "ekiben": Peer(
        command=GRANIAN_COMMAND, settings=EKIBEN_SETTINGS, formats={"json": NATIVE_FORMATS, "binary": "v2-binary"}
    ),
    "ekiben-v2": Peer(command=GRANIAN_COMMAND, settings=EKIBEN_SETTINGS, formats={"json": "v2-json"}),
    "ekiben-bentoml": Peer(
        command=BENTOML_COMMAND,
        settings=EKIBEN_SETTINGS,
        formats={"json": NATIVE_FORMATS, "binary": "v2-binary"},
        workers=(1,),
    ),
    "ekiben-bentoml-v2": Peer(
        command=BENTOML_COMMAND,
        settings=EKIBEN_SETTINGS,
        formats={"json": "v2-json"},
        workers=(1,),
    ),
    "triton": Peer(
        environment="triton", module="triton", formats={"json": "v2-json-columns", "binary": "v2-binary-columns"}
    ),
    "torchserve": Peer(
        environment="torchserve", module="torchserve", formats={"json": "torchserve", "binary": "torchserve-raw"}
    ),
    "fastapi": Peer(environment="fastapi", module="fastapi", formats={"json": "json", "binary": "raw-route"}),
    "kserve": Peer(environment="kserve", module="kserve", formats={"json": "v1", "binary": "v2-binary"}),
    "mlserver": Peer(environment="mlserver", module="mlserver", formats={"json": "v2-json"}),
    "litserve": Peer(environment="litserve", module="litserve", formats={"json": "json"}),
    "ray": Peer(
        environment="ray",
        module="ray",
        formats={"json": "json", "binary": "raw"},
    ),
    "ray-batch": Peer(
        environment="ray",
        module="ray",
        variant="batch",
        formats={"json": "json", "binary": "raw"},
        workers=(1,),
    ),
    "bentoml": Peer(environment="bentoml", module="bentoml", formats={"json": "rows"}),
    "bentoml-batch": Peer(environment="bentoml", module="bentoml", variant="batch", formats={"json": "rows"}),
    "limit-granian": Peer(environment="limits", module="granian", formats={"json": "json", "binary": "raw"}),
    "limit-noop": Peer(environment="limits", module="noop", formats={"json": "json", "binary": "raw"}, check="status"),
    "limit-ort": Peer(environment="limits", module="raw_ort", formats={"binary": "raw"}),
}
