"""LitServe with its batching and a batch timeout of zero."""

import litserve
import numpy as np

from benchmarks.peers.servers.model import FILES, HOST, PORT, WORKERS, Feeds, Model


class Peer(litserve.LitAPI):
    def __init__(self, name: str) -> None:
        super().__init__(max_batch_size=64, batch_timeout=0.0, api_path=f"/{name}")
        self.name = name

    def setup(self, device: str) -> None:  # noqa: ARG002
        self.model = Model(FILES[self.name])

    def decode_request(self, request: dict) -> Feeds:
        return self.model.from_json(request)

    def batch(self, inputs: list[Feeds]) -> list[Feeds]:
        return inputs

    def predict(self, inputs: list[Feeds]) -> list[np.ndarray]:
        return self.model.run_many(inputs)

    def unbatch(self, output: list[np.ndarray]) -> list[np.ndarray]:
        return output

    def encode_response(self, output: np.ndarray) -> dict:
        return {"probabilities": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer([Peer(name) for name in FILES], accelerator="cpu", workers_per_device=WORKERS)
    server.run(HOST, PORT, num_api_servers=WORKERS, log_level="warning", generate_client_file=False)
