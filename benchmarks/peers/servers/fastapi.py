"""The usual way to serve a model: FastAPI with pydantic models around onnxruntime."""

import fastapi
import uvicorn
from pydantic import BaseModel

from benchmarks.peers.servers.model import HOST, PORT, WORKERS, load

app = fastapi.FastAPI()
models = load() if __name__ != "__main__" else {}


class Images(BaseModel):
    images: list[list[list[int]]]


class Texts(BaseModel):
    ids: list[list[int]]
    lengths: list[int]


class Response(BaseModel):
    probabilities: list[list[float]]


@app.post("/mnist-cnn")
async def classify(request: Images) -> Response:
    model = models["mnist-cnn"]
    return Response(probabilities=model.run(model.from_json({"images": request.images})).tolist())


@app.post("/news-lstm")
async def predict(request: Texts) -> Response:
    model = models["news-lstm"]
    feeds = model.from_json({"ids": request.ids, "lengths": request.lengths})
    return Response(probabilities=model.run(feeds).tolist())


@app.post("/raw/{name}")
async def raw(name: str, request: fastapi.Request) -> fastapi.Response:
    model = models[name]
    output = model.run(model.from_bytes(await request.body()))
    return fastapi.Response(output.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    uvicorn.run(f"{__spec__.name}:app", host=HOST, port=PORT, workers=WORKERS, access_log=False, log_level="warning")
