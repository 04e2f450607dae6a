"""A lower bound of the cost: an ASGI endpoint that reads the body and sends a constant."""

import uvicorn

from benchmarks.peers.servers.model import HOST, PORT, WORKERS

BODY = b'{"probabilities":[[0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1]]}'
START = {"type": "http.response.start", "status": 200}
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({**START, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


if __name__ == "__main__":
    uvicorn.run(f"{__spec__.name}:app", host=HOST, port=PORT, workers=WORKERS, access_log=False, log_level="warning")
