"""KServe's Python server: its v1 protocol for JSON, which is faster than v2 in KServe, and v2 with binary tensors."""

import logging

import kserve
import numpy as np
import uvicorn

from benchmarks.peers.servers.model import FILES, HOST, PORT, WORKERS, Model

# Here rather than under __main__, because the workers import this module too.
logging.disable(logging.INFO)


class Peer(kserve.Model):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.model = Model(FILES[name])
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):  # noqa: ARG002
        if isinstance(payload, dict):
            rows = payload["instances"]
            if self.model.is_image:
                return {"predictions": self.model.run({"images": np.array(rows, np.uint8)}).tolist()}
            texts = {"ids": [row["ids"] for row in rows], "lengths": [row["length"] for row in rows]}
            return {"predictions": self.model.run(self.model.from_json(texts)).tolist()}
        probabilities = self.model.run({tensor.name: tensor.as_numpy() for tensor in payload.inputs})
        output = kserve.InferOutput("probabilities", list(probabilities.shape), "FP32")
        output.set_data_from_numpy(probabilities, binary_data=True)
        return kserve.InferResponse(payload.id or "", self.name, [output], requested_outputs=payload.request_outputs)


class LocalConfig(uvicorn.Config):
    """Makes KServe, which listens on every interface, listen on the loopback address only."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **{**options, "host": HOST, "access_log": False})


if __name__ == "__main__":
    uvicorn.Config = LocalConfig
    server = kserve.ModelServer(http_port=PORT, workers=WORKERS, enable_grpc=False, enable_latency_logging=False)
    server.start([Peer(name) for name in FILES])
