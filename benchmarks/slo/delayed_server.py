"""A server of the Open Inference Protocol whose delays are known, to check what the benchmark reports.

    python -m benchmarks.slo.delayed_server --port 8080 --delay-ms 20 [--stall-after 500 --stall-s 1] [--fail-every 100]

Each answer is sent `--delay-ms` after its request has arrived. `--stall-after`: after so many requests, nothing is read
for `--stall-s` seconds, once. `--fail-every`: each n-th request is answered with status 503.
"""

import argparse
import asyncio
import json
import time

METADATA = {
    "name": "delayed",
    "versions": ["1"],
    "platform": "none",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 2]}],
}
ANSWER = {"outputs": [{"name": "scores", "datatype": "FP32", "shape": [1, 2], "data": [0.25, 0.75]}]}


class Server:
    def __init__(self, *, delay_s: float, stall_after: int, stall_s: float, fail_every: int) -> None:
        self._delay_s, self._stall_after, self._stall_s, self._fail_every = delay_s, stall_after, stall_s, fail_every
        self._count = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                due = loop.time() + self._delay_s
                length = next(
                    (line.split(":")[1] for line in head.split("\r\n") if "content-length:" in line[:15]), "0"
                )
                await reader.readexactly(int(length))
                if head.startswith("get"):
                    self._send(writer, 200, METADATA)
                    continue
                self._count += 1
                failed = self._fail_every and self._count % self._fail_every == 0
                if self._count == self._stall_after:
                    time.sleep(self._stall_s)
                await asyncio.sleep(due - loop.time())
                self._send(writer, 503 if failed else 200, {} if failed else ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    @staticmethod
    def _send(writer: asyncio.StreamWriter, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)


async def run(port: int, server: Server) -> None:
    async with await asyncio.start_server(server.serve, "127.0.0.1", port) as listening:
        print(listening.sockets[0].getsockname()[1], flush=True)
        await listening.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one; it is printed")
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--stall-after", type=int, default=0)
    parser.add_argument("--stall-s", type=float, default=1.0)
    parser.add_argument("--fail-every", type=int, default=0)
    args = parser.parse_args()
    server = Server(
        delay_s=args.delay_ms / 1e3, stall_after=args.stall_after, stall_s=args.stall_s, fail_every=args.fail_every
    )
    asyncio.run(run(args.port, server))


if __name__ == "__main__":
    main()
