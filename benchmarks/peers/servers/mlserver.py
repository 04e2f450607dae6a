"""MLServer with a custom runtime, without its adaptive batching, whose cost exceeds its gain here.

Its parallel workers expect a current event loop, which newer versions of uvloop do not create: uvloop 0.21 is pinned.
"""

import json
import os
import sys
from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.peers.servers.model import FILES, HOME, HOST, PORT, WORKERS, Model, free_port


class Peer(MLModel):
    async def load(self) -> bool:
        self.model = Model(FILES[self.name])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        feeds = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        output = NumpyCodec.encode_output("probabilities", self.model.run(feeds))
        return InferenceResponse(model_name=self.name, outputs=[output])


if __name__ == "__main__":
    settings = {
        "debug": False,
        "host": HOST,
        "http_port": PORT,
        "grpc_port": free_port(),
        "metrics_port": free_port(),
        "parallel_workers": WORKERS if WORKERS > 1 else 0,
        "logging_settings": {
            "version": 1,
            "disable_existing_loggers": False,
            "root": {"level": "WARNING"},
            "loggers": {"uvicorn.access": {"level": "WARNING"}, "mlserver": {"level": "WARNING"}},
        },
    }
    (HOME / "settings.json").write_text(json.dumps(settings))
    for name in FILES:
        (HOME / name).mkdir()
        model = {"name": name, "implementation": f"{__spec__.name}.Peer"}
        (HOME / name / "model-settings.json").write_text(json.dumps(model))
    os.chdir(HOME)
    os.execv(Path(sys.executable).parent / "mlserver", ["mlserver", "start", str(HOME)])
