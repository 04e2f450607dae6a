"""Send a service its own examples: the load of deploy/compose.yaml, with nothing but Python's library.

    python deploy/load.py http://127.0.0.1:3000 [--clients 8] [--seconds 600]

Each client sends the example of one READY model after the other, on a connection that stays open, and waits as long as
a refusal asks. The last line counts the responses by status.
"""

import argparse
import http.client
import itertools
import json
import sys
import threading
import time
from collections import Counter
from urllib.parse import urlsplit


def examples(address: str) -> list[tuple[str, bytes]]:
    """Return the path and the body of one request to every READY model."""
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request("GET", "/models")
    response = connection.getresponse()
    if response.status != 200:
        raise SystemExit(f"GET /models: {response.status} {response.reason}")
    bodies = []
    for name in [model["name"] for model in json.load(response)["models"] if model["state"] == "READY"]:
        connection.request("GET", f"/models/{name}")
        requests = json.load(connection.getresponse())["requests"]
        if requests.get("example") is not None:
            bodies.append(("/predict", json.dumps(requests["example"]).encode()))
    return bodies


def send(address: str, bodies: list[tuple[str, bytes]], first: int, end: float, counts: Counter[int]) -> None:
    """Send one request after the other until `end`, starting with the body `first`."""
    connection = http.client.HTTPConnection(address, timeout=60)
    for path, body in itertools.islice(itertools.cycle(bodies), first, None):
        if time.monotonic() >= end:
            return
        try:
            connection.request("POST", path, body, {"content-type": "application/json"})
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            counts[0] += 1
            connection.close()
            time.sleep(1)
            continue
        counts[response.status] += 1
        if response.status in {429, 503}:
            time.sleep(float(response.headers.get("retry-after", 1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="address of the service, such as http://127.0.0.1:3000")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=600)
    args = parser.parse_args()
    address = urlsplit(args.url).netloc
    bodies = examples(address)
    if not bodies:
        sys.exit("no READY model has an example")
    counts: Counter[int] = Counter()
    end = time.monotonic() + args.seconds
    threads = [
        threading.Thread(target=send, args=(address, bodies, number, end, counts)) for number in range(args.clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({str(status or "lost"): count for status, count in sorted(counts.items())}))
    sys.exit(0 if counts[200] else 1)


if __name__ == "__main__":
    main()
