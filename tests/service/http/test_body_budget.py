"""Bodies are counted per client and in all, and a refused one changes nothing."""

from ipaddress import ip_network
from typing import Any

import pytest

from service.errors import EkibenError
from service.http.body_budget import FREE_BYTES, BodyBudget
from service.http.wire.asgi import AsgiRequest

MIB = 1 << 20


def request(client: str, **headers: str) -> AsgiRequest:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope: dict[str, Any] = {"method": "POST", "path": "/x", "headers": pairs, "client": (client, 5)}
    return AsgiRequest(scope, None, None)  # type: ignore[arg-type]


def refusal(budget: BodyBudget, client: AsgiRequest, num_bytes: int) -> str:
    with pytest.raises(EkibenError) as caught:
        budget.reserve(client, num_bytes)
    assert caught.value.retry_after_s == 1.0
    return caught.value.slug


def test_one_client_may_use_half_and_all_clients_the_whole() -> None:
    budget = BodyBudget(8 * MIB, MIB, ())
    mine = [request("10.0.0.1") for _ in range(5)]
    for one in mine[:4]:
        budget.reserve(one, MIB)
    assert refusal(budget, mine[4], MIB) == "rate-limited"
    others = [request(f"10.0.1.{i}") for i in range(5)]
    for one in others[:4]:
        budget.reserve(one, MIB)
    assert refusal(budget, others[4], MIB) == "overloaded"
    budget.release(mine[0])
    budget.reserve(others[4], MIB)
    assert refusal(budget, mine[4], MIB) == "overloaded"
    for one in (*mine, *others):
        budget.release(one)
    assert (budget._total, budget._by_client) == (0, {})


def test_small_bodies_are_free_and_growing_ones_are_counted_once() -> None:
    budget = BodyBudget(4 * MIB, MIB, ())
    growing = request("10.0.0.1")
    budget.reserve(growing, FREE_BYTES)
    assert growing.reserved_bytes == 0
    for size in (FREE_BYTES + 1, MIB, MIB, 2 * MIB):
        budget.reserve(growing, size)
        assert budget._total == growing.reserved_bytes == size
    assert refusal(budget, growing, 2 * MIB + 1) == "rate-limited"
    assert budget._total == 2 * MIB


def test_one_body_of_the_largest_size_is_never_too_much() -> None:
    budget = BodyBudget(1024, MIB, ())
    budget.reserve(request("10.0.0.1"), MIB)
    assert refusal(budget, request("10.0.0.2"), MIB) == "overloaded"


def test_behind_a_trusted_proxy_each_client_counts_alone() -> None:
    budget = BodyBudget(8 * MIB, MIB, [ip_network("10.0.0.0/8")])
    for client in ("192.0.2.1", "192.0.2.2"):
        budget.reserve(request("10.0.0.1", x_forwarded_for=client), 4 * MIB)
    assert refusal(budget, request("10.0.0.1", x_forwarded_for="192.0.2.1"), MIB) == "rate-limited"
