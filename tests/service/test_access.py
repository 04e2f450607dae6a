"""Strangers stay out of every route of both hosts, before a byte of their body is read."""

import gc
import http.client
import itertools
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from service.http.route import InferenceRoute, ReadRoute, Route
from service.http.router import find_route, served_routes
from service.keys.key_file import SCOPES, new_key
from tests.e2e.serving import ROOT, SERVE, ServerProcess, ends_with_parent, environment, free_port
from tests.service.bundles import NAMES
from tests.service.hosts import GRANIAN, IMAGES, JSON, Answer, all_are_ready, ask, running_server, wait_until
from tests.service.key_files import write_keys

PLAYGROUND = {"/", "/playground", "/playground/app.js"}  # they hold no data
PROBES = {"/livez", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"}
ORIGIN = "https://app.example"
EVERY = ",".join(SCOPES)
KEYS = {
    "all": f"scopes={EVERY}",
    **{f"no-{scope}": f"scopes={','.join(other for other in SCOPES if other != scope)}" for scope in SCOPES},
    "slow": f"scopes={EVERY} rate=0.02 burst=20",
    "few": f"scopes={EVERY} concurrency=3",
    "old": f"scopes={EVERY} expires=2020-01-01",
}
LONG = {"model": NAMES["language-model"], "prompt": "the ", "max_tokens": 150, "seed": 1}
HOSTS = ("granian", "bentoml")


class Started:
    """A host with keys."""

    def __init__(self, process: ServerProcess, path: Path, keys: dict[str, str]) -> None:
        self.process, self.path, self.keys = process, path, keys
        self.port = process.port


def started(command: tuple[str, ...], bundles: Path, folder: Path) -> Iterator[Started]:
    path = folder / "keys"
    keys = write_keys(path, **KEYS)
    settings = {"EKIBEN_KEYS": str(path), "EKIBEN_CORS_ORIGINS": ORIGIN, "EKIBEN_ACCESS_LOG": "1"}
    with running_server(command, bundles, folder, **settings) as process:
        yield Started(process, path, keys)


@pytest.fixture(scope="module")
def granian(served_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    yield from started((*GRANIAN, "--workers", "2"), served_bundles, tmp_path_factory.mktemp("granian"))


@pytest.fixture(scope="module")
def bentoml(served_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    yield from started(SERVE, served_bundles, tmp_path_factory.mktemp("bentoml"))


@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest) -> Started:
    found: Started = request.getfixturevalue(request.param)
    return found


def inventory() -> dict[str, Route]:
    """Every route by a path that leads to it."""
    routes: dict[str, Route] = {}
    for route in served_routes():
        path = route.name.replace("{model}", "tiny-images").replace("{version}", "1").replace("...", "nothing")
        path = path.replace("{asset}", "app.js").replace("{plot}", "curves.png")
        routes[path] = route
        assert find_route(path) in {route, None}, path
    return routes


def test_the_inventory_is_whole() -> None:
    """Every route of the process is in it and has a scope; those that need no key are known by name."""
    routes = inventory()
    names = {route.name for route in routes.values()}
    expected = {
        "/v2/models/{model}/infer",
        "/models/{model}",
        "/v1/...",
        "/v2/...",
        "/...",
        "/",
        "/schema.json",
        "/metrics",
    }
    assert expected <= names
    # The class of some objects of other libraries is a property that warns.
    found = {route.name for route in gc.get_objects() if type(route) in {ReadRoute, InferenceRoute}}
    assert {name for name in found if "test" not in name} <= names
    assert {path for path, route in routes.items() if route.scope is None} == PROBES | PLAYGROUND
    assert all(route.scope in SCOPES for path, route in routes.items() if path not in PROBES | PLAYGROUND)
    for path in ("/nothing", "/static/x", "/docs", "/classify/submit"):
        route = find_route(path)
        assert route is not None
        assert route.scope == "models"


def load_again(host: Started) -> None:
    """Have every worker serve the model that was unloaded."""
    key = host.keys["all"]
    assert ask(host.port, "POST", "/v2/repository/models/tiny-images/load", b"{}", x_api_key=key)[0] == 200
    # On connections of their own, so on any worker.
    wait_until(
        lambda: {ask(host.port, "POST", "/classify", IMAGES, **JSON, x_api_key=key)[0] for _ in range(16)} == {200}
    )


def answer_before_the_body(port: int, method: str, path: str, headers: dict[str, str]) -> Answer:
    """Send a head that announces a body, and no byte of it; return the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        client.sendall(f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n{lines}\r\n".encode("latin-1"))
        response = http.client.HTTPResponse(client, method=method)
        response.begin()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def check_dialect(path: str, status: int, headers: dict[str, str], body: bytes) -> None:
    document = json.loads(body)
    slug = {401: "unauthorized", 403: "forbidden", 421: "misdirected", 429: "rate-limited"}[status]
    if path.startswith("/v1/"):
        codes = {"unauthorized": "invalid_api_key", "rate-limited": "rate_limit_exceeded"}
        error = document["error"]
        assert (error["code"], error["type"]) == (codes.get(slug, slug), "invalid_request_error")
        assert error["message"]
        assert headers["content-type"] == "application/json"
        return
    is_oip = path == "/v2" or path.startswith("/v2/")
    assert headers["content-type"] == ("application/json" if is_oip else "application/problem+json")
    assert (document["code"], document["status"]) == (slug, status)
    assert not is_oip or document["error"] == document["detail"]


@pytest.mark.parametrize("name", HOSTS)
def test_every_route_but_the_probes_needs_a_key_with_its_scope(name: str, request: pytest.FixtureRequest) -> None:
    host: Started = request.getfixturevalue(name)
    routes = inventory()
    assert len(routes) > 30
    for path, route in routes.items():
        scope, method = route.scope, route.methods[0]
        if scope is None:
            assert ask(host.port, method, path)[0] in {200, 503}
            continue
        challenge = 'Bearer realm="ekiben"'
        for headers in ({}, {"x-api-key": new_key()}, {"authorization": "Bearer x"}, {"x-api-key": host.keys["old"]}):
            status, got, body = answer_before_the_body(host.port, method, path, headers)
            assert (path, status, got["www-authenticate"]) == (path, 401, challenge)
            check_dialect(path, status, got, body)
        key = host.keys[f"no-{scope}"]
        status, got, body = answer_before_the_body(host.port, method, path, {"authorization": f"Bearer {key}"})
        assert (path, status) == (path, 403)
        assert got["www-authenticate"] == f'{challenge}, error="insufficient_scope", scope="{scope}"'
        assert f"lacks the scope '{scope}'" in body.decode()
        check_dialect(path, status, got, body)
        status, _, _ = ask(host.port, method, path, b"{}" if method == "POST" else b"", x_api_key=host.keys["all"])
        assert status not in {401, 403, 421, 429}, path
        if path.endswith("/unload"):
            load_again(host)


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "BREW"])
@pytest.mark.parametrize(
    "path", ["/classify", "/v2/models/tiny-images/infer", "/metrics", "/docs.json", "/v1/x", "/models"]
)
def test_no_method_leads_past_the_check(method: str, path: str, host: Started) -> None:
    status, _, body = answer_before_the_body(host.port, method, path, {})
    assert status == 401 or (method == "BREW" and status in {400, 405})
    assert method != "HEAD" or not body


@pytest.mark.parametrize(
    "path",
    [
        "//livez", "/livez/../metrics", "/livez/..%2fmetrics", "/./livez", "/livez%00", "/livez;x",
        "/%2e%2e/metrics", "/metrics?/livez", "/metrics%3f/livez", "/v2/health/live//",
        "/v2/health/../models/tiny-images",
        "/LIVEZ", "/livez%20", "/healthz/x", "/readyz/../docs.json", "/metrics/", "/docs.json/", "/v2//", "//metrics",
        "/models/", "/v1", "/static/x", "/static/../docs.json", "/classify/", "/%63lassify", "/metric%73",
    ],
)  # fmt: skip
def test_no_spelling_of_a_path_leads_past_the_check(path: str, host: Started) -> None:
    status, _, _ = answer_before_the_body(host.port, "GET", path, {})
    assert status in {401, 400}, path
    status, _, body = ask(host.port, "GET", path.partition("?")[0].partition("#")[0], x_api_key=host.keys["no-models"])
    assert status != 200 or b"ekiben_http_requests" in body  # `/metrics` needs another scope


def raw(port: int, head: bytes) -> bytes:
    """Send bytes, and return what comes back until the connection closes or is quiet."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(head)
        client.settimeout(2)
        got = b""
        try:
            while part := client.recv(65536):
                got += part
        except (TimeoutError, ConnectionResetError):
            pass
        return got


def heads_of(keys: dict[str, str]) -> dict[str, bytes]:
    key = keys["all"].encode()
    start = b"GET /models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    return {
        "latin-1": start + b"authorization: Bearer " + key + b"\xe9\r\n\r\n",
        "utf-8": start + "authorization: Bearer é\r\n\r\n".encode(),
        "a NUL": start + b"x-api-key: " + key + b"\0\r\n\r\n",
        "a long key": start + b"x-api-key: " + b"k" * 30_000 + b"\r\n\r\n",
        "a megabyte": start + b"x-api-key: " + b"k" * 1_000_000 + b"\r\n\r\n",
        "a fold": start + b"x-api-key: " + key[:20] + b"\r\n " + key[20:] + b"\r\n\r\n",
        "a blank before the colon": start + b"x-api-key : " + key + b"\r\n\r\n",
        "the wrong one first": start + b"x-api-key: x\r\nx-api-key: " + key + b"\r\n\r\n",
        "the wrong token first": start + b"authorization: Bearer x\r\nAuthorization: Bearer " + key + b"\r\n\r\n",
        "both, different": start + b"x-api-key: x\r\nauthorization: Bearer " + key + b"\r\n\r\n",
        "in the path": b"GET /models?x-api-key=" + key + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        "in a cookie": start + b"cookie: x-api-key=" + key + b"\r\n\r\n",
        "an underscore": start + b"x_api_key: " + key + b"\r\n\r\n",
        "basic": start + b"authorization: Basic " + key + b"\r\n\r\n",
        "as two": start + b"authorization: Bearer " + key + b" x\r\n\r\n",
        "HTTP/1.0": b"GET /models HTTP/1.0\r\n\r\n",
        "absolute": b"GET http://x/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        "chunked": b"POST /classify HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n",
        "an expectation": b"POST /classify HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n",
        "an upgrade": start + b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
        b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    }  # fmt: skip


@pytest.mark.parametrize("case", heads_of({"all": ""}))
def test_no_form_of_a_head_leads_past_the_check(case: str, host: Started) -> None:
    got = raw(host.port, heads_of(host.keys)[case])
    assert b" 200 " not in got
    assert b"tiny-images" not in got
    assert re.match(rb"HTTP/1\.[01] (401|400|403|431) ", got) or got == b"", got[:200]
    assert b"100 Continue" not in got


@pytest.mark.parametrize("header", [b"content-length: 9", b"transfer-encoding: chunked"])
def test_a_refused_client_that_holds_its_body_back_holds_no_connection(header: bytes, host: Started) -> None:
    head = b"POST /classify HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" + header + b"\r\n\r\n"
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", host.port), timeout=10) as client:
            client.sendall(head)
            assert client.recv(65536).startswith(b"HTTP/1.1 401 ")
            while client.recv(65536):  # a time-out fails the test
                pass


def test_each_request_of_a_connection_needs_a_key(host: Started) -> None:
    head = b"GET /models HTTP/1.1\r\nhost: x\r\n"
    with_key = head + b"x-api-key: " + host.keys["all"].encode() + b"\r\n\r\n"
    got = raw(host.port, with_key + head + b"\r\n" + with_key + head + b"connection: close\r\n\r\n")
    assert re.findall(rb"HTTP/1.1 (\d+) ", got) == [b"200", b"401", b"200", b"401"]


def test_the_same_key_in_any_case_of_the_header_is_accepted(host: Started) -> None:
    key = host.keys["all"]
    for headers in ({"X-API-KEY": key}, {"AUTHORIZATION": f"bearer {key}"}, {"x-api-key": f"  {key}  "}):
        assert ask(host.port, "GET", "/models", **headers)[0] == 200


def test_keys_are_not_logged(host: Started) -> None:
    log = (host.path.parent / "log").read_text()
    assert not [name for name, key in host.keys.items() if key in log]


def test_a_rate_holds_for_all_workers(host: Started) -> None:
    """Each request is on a new connection, so on any worker."""
    key = host.keys["slow"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda _: ask(host.port, "POST", "/classify", IMAGES, **JSON, x_api_key=key), range(60))
        )
    assert sorted(status for status, _, _ in answers) == [200] * 20 + [429] * 40
    for status, headers, body in answers:
        assert headers["ratelimit-policy"] == '"default";q=20;w=1000'
        left, full_s = map(int, re.fullmatch(r'"default";r=(\d+);t=(\d+)', headers["ratelimit"]).groups())  # type: ignore[union-attr]
        assert 0 <= left < 20
        assert 0 < full_s <= 1000
        if status == 429:
            assert 1 <= int(headers["retry-after"]) <= 50
            check_dialect("/classify", status, headers, body)
    status, headers, body = answer_before_the_body(host.port, "POST", "/v1/completions", {"x-api-key": key})
    assert status == 429
    check_dialect("/v1/completions", status, headers, body)
    assert ask(host.port, "GET", "/livez", x_api_key=key)[0] == 200


def test_a_concurrency_holds_for_all_workers_and_ends_with_each_request(host: Started) -> None:
    """Requests that wait for their body, streams, and clients that leave: none keeps its place."""
    key = host.keys["few"]
    head = f"POST /classify HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nx-api-key: {key}\r\n"

    def classify(content: str) -> int:
        return ask(host.port, "POST", "/classify", content, **JSON, x_api_key=key)[0]

    def num_free() -> int:
        status, headers, _ = ask(host.port, "GET", "/models", x_api_key=key)
        assert status == 200, "reading takes no place"
        return int(headers["ratelimit"].removeprefix('"concurrency";r='))

    for _ in range(3):
        waiting = []
        for _ in range(3):
            client = socket.create_connection(("127.0.0.1", host.port), timeout=20)
            client.sendall(f"{head}content-length: {len(IMAGES)}\r\n\r\n".encode())
            waiting.append(client)
            wait_until(lambda: num_free() == 3 - len(waiting))  # noqa: B023 - called at once
        assert classify(IMAGES) == 429
        status, headers, _ = answer_before_the_body(host.port, "POST", "/generate/stream", {"x-api-key": key})
        assert (status, headers["ratelimit"]) == (429, '"concurrency";r=0')
        for client in waiting[:1]:
            client.sendall(IMAGES.encode())
            response = http.client.HTTPResponse(client)
            response.begin()
            assert response.status == 200
        for client in waiting:
            client.close()
        wait_until(lambda: num_free() == 3)
    streams = []
    for _ in range(3):
        connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=20)
        connection.request("POST", "/generate/stream", json.dumps(LONG), {**JSON, "x-api-key": key})
        streams.append((connection, connection.getresponse()))
    assert [response.status for _, response in streams] == [200] * 3
    assert "ratelimit" in {name.lower() for name, _ in streams[0][1].getheaders()}
    for connection, response in streams:
        response.close()
        connection.close()
    wait_until(lambda: num_free() == 3)
    for content in ("{", "[]", IMAGES[:-1]) * 4:  # errors
        assert classify(content) in {400, 422}
    assert [classify(IMAGES) for _ in range(8)] == [200] * 8


@pytest.mark.parametrize("command", [(*GRANIAN, "--workers", "2"), SERVE], ids=HOSTS)
def test_a_new_file_of_keys_is_used_without_a_restart(
    command: tuple[str, ...], served_bundles: Path, tmp_path: Path
) -> None:
    path = tmp_path / "keys"
    old = write_keys(path, alice="scopes=models")["alice"]
    with running_server(command, served_bundles, tmp_path, EKIBEN_KEYS=str(path)) as process:

        def statuses(key: str) -> set[int]:
            return {ask(process.port, "GET", "/models", x_api_key=key)[0] for _ in range(10)}

        assert statuses(old) == {200}
        path.write_text("alice scopes=everything\n")
        wait_until(lambda: "the keys of before stay in use" in (tmp_path / "log").read_text())
        assert statuses(old) == {200}
        assert all_are_ready(process.port)
        new = write_keys(path, alice="scopes=models")["alice"]
        wait_until(lambda: statuses(new) == {200} and statuses(old) == {401})


def test_a_page_of_an_allowed_origin_may_use_every_route(host: Started) -> None:
    asked = {"origin": ORIGIN, "access-control-request-method": "POST", "access-control-request-headers": "x-api-key"}
    for path in (
        "/classify",
        "/generate/stream",
        "/v2/models/tiny-images/infer",
        "/v1/chat/completions",
        "/docs.json",
        "/livez",
    ):
        status, headers, body = ask(host.port, "OPTIONS", path, **asked)
        assert (path, status, body) == (path, 200, b"")
        assert headers["access-control-allow-origin"] == ORIGIN
        assert headers["access-control-allow-headers"] == "x-api-key"
        assert ask(host.port, "OPTIONS", path, **{**asked, "origin": "https://evil.example"})[0] == 403
    key = {"x-api-key": host.keys["all"], "origin": ORIGIN, "sec-fetch-site": "cross-site"}
    stream = json.dumps({**LONG, "max_tokens": 3})
    for method, path, content in (
        ("POST", "/classify", IMAGES), ("GET", "/docs.json", ""), ("POST", "/generate/stream", stream),
        ("POST", "/classify", "{"), ("GET", "/nothing", ""), ("GET", "/livez", ""),
    ):  # fmt: skip
        status, headers, _ = ask(host.port, method, path, content, **{**JSON, **key})
        assert headers["access-control-allow-origin"] == ORIGIN, (path, status)
        assert headers["vary"] == "Origin"
    status, headers, _ = ask(host.port, "POST", "/classify", IMAGES, **{**JSON, "origin": ORIGIN})
    assert (status, headers["access-control-allow-origin"]) == (401, ORIGIN), "the page learns why"


def test_a_page_of_another_origin_causes_no_work(host: Started) -> None:
    """Forms and simple requests need no preflight; the Open Inference Protocol takes bodies without a type."""
    for path, headers in itertools.product(
        ("/classify", "/v2/models/tiny-images/infer", "/v1/completions", "/docs.json", "/nothing"),
        ({"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}),
    ):
        for content_type in ({}, {"content-type": "text/plain"}, JSON):
            given = {**headers, **content_type, "x-api-key": host.keys["all"]}
            status, got, body = answer_before_the_body(host.port, "POST", path, given)
            assert (path, status) == (path, 403)
            assert "access-control-allow-origin" not in got
            check_dialect(path, status, got, body)


@pytest.fixture(scope="module")
def granian_without_keys(served_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(GRANIAN, served_bundles, tmp_path_factory.mktemp("granian")) as process:
        yield process


@pytest.fixture(scope="module")
def bentoml_without_keys(served_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(SERVE, served_bundles, tmp_path_factory.mktemp("bentoml")) as process:
        yield process


@pytest.mark.parametrize("name", HOSTS)
def test_without_keys_only_names_of_this_machine_lead_to_the_service(name: str, request: pytest.FixtureRequest) -> None:
    process: ServerProcess = request.getfixturevalue(f"{name}_without_keys")
    port = process.port
    for path in ("/models", "/v2/models/tiny-images", "/v1/models", "/docs.json", "/metrics", "/nothing"):
        status, headers, body = ask(port, "GET", path, host="evil.example:3000")
        assert (path, status) == (path, 421)
        check_dialect(path, status, headers, body)
        assert ask(port, "GET", path, host="localhost")[0] != 421
    for path in PROBES:
        assert ask(port, "GET", path, host="10.1.2.3:3000")[0] == 200
    assert ask(port, "GET", "/models", authorization="Bearer whatever")[0] == 200
    started_at = time.monotonic()
    assert answer_before_the_body(port, "POST", "/classify", {"origin": "https://evil.example"})[0] == 403
    assert time.monotonic() - started_at < 10


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_bentoml_listens_on_no_other_address_without_keys(host: str) -> None:
    """The option and the variable of the framework; without either, it listens on 127.0.0.1."""
    command = [*SERVE, "--port", str(free_port()), *(["--host", host] if host else [])]
    env = environment(**({} if host else {"BENTOML_HOST": "0.0.0.0"}))
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("without keys the service listens on 127.0.0.1 or ::1 only, not on ")
    assert "Traceback" not in done.stderr


def test_bentoml_listens_on_this_machine_by_default(served_bundles: Path, tmp_path: Path) -> None:
    port = free_port()
    env = environment(EKIBEN_BUNDLES=str(served_bundles), BENTOML_HOME=str(tmp_path))
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            ends_with_parent([*SERVE, "--port", str(port)]), cwd=ROOT, env=env, stdout=log, stderr=log
        )
    try:
        wait_until(lambda: addresses(process.pid, port))
        assert addresses(process.pid, port) == {"127.0.0.1"}
    finally:
        process.terminate()
        process.wait(30)


def addresses(pid: int, port: int) -> set[str]:
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    found = [
        one for process in processes for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN
    ]
    return {one.laddr.ip for one in found if one.laddr.port == port}


@pytest.mark.parametrize("command", [GRANIAN, SERVE], ids=HOSTS)
def test_a_service_that_is_told_so_answers_everyone(
    command: tuple[str, ...], served_bundles: Path, tmp_path: Path
) -> None:
    with running_server(command, served_bundles, tmp_path, EKIBEN_ALLOW_ANONYMOUS="true") as process:
        assert ask(process.port, "GET", "/models", host="any.example")[0] == 200
