"""One owner for each shard, and what happens to the claims of the dead."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from operator import methodcaller

import pytest

from service.scoring.output import claims
from service.scoring.output.claims import Claims
from service.scoring.storage.location import Location, parse_location
from tests.service.scoring.object_server import ROOT, ObjectServer

Make = Callable[[], Claims]


@pytest.fixture
def location(store: ObjectServer) -> Location:
    return parse_location(store.uri("claims"), option="--output")


@pytest.fixture
def claimant(location: Location) -> Iterator[Make]:
    opened: list[Claims] = []

    def claimant() -> Claims:
        opened.append(Claims(location))
        return opened[-1]

    yield claimant
    for item in opened:
        item.close()


@pytest.fixture
def on_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can see whether an owner lives."""
    monkeypatch.setattr(claims, "_is_dead", lambda owner: False)


def test_a_claim_is_exclusive_until_it_is_released(claimant: Make, store: ObjectServer) -> None:
    first, second = claimant(), claimant()
    assert first.try_claim("a")
    assert not second.try_claim("a")
    assert not first.try_claim("a")
    assert second.try_claim("b")
    first.release("a")
    assert second.try_claim("a")
    first.release("a")
    assert store.list_keys() == ["claims/a.json", "claims/b.json"]
    second.close()
    assert store.list_keys() == []


def test_one_of_many_gets_a_claim(claimant: Make) -> None:
    many = [claimant() for _ in range(8)]
    with ThreadPoolExecutor(len(many)) as pool:
        for name in ("a", "b", "c"):
            assert sum(pool.map(methodcaller("try_claim", name), many)) == 1


def test_the_claim_of_a_dead_process_of_this_machine_is_taken_at_once(claimant: Make, location: Location) -> None:
    code = (
        "import os, sys\n"
        "from service.scoring.output.claims import Claims\n"
        "from service.scoring.storage.location import exact_location\n"
        "print(Claims(exact_location(sys.argv[1])).try_claim('a'), flush=True); input()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, location.uri], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdin
    assert owner.stdout
    assert owner.stdout.readline() == "True\n"
    assert not claimant().try_claim("a")
    owner.kill()
    # Dead, and nobody has waited for it.
    while not claimant().try_claim("a"):
        time.sleep(0.01)
    owner.wait()
    owner.stdin.close()
    owner.stdout.close()


@pytest.mark.usefixtures("on_other_machines")
def test_a_claim_that_is_not_renewed_expires(claimant: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "LEASE_S", 0.5)
    first, second, third = claimant(), claimant(), claimant()
    assert first.try_claim("a")
    assert not second.try_claim("a")
    assert not third.try_claim("a")
    time.sleep(0.6)
    assert sorted([second.try_claim("a"), third.try_claim("a")]) == [False, True]
    # The owner that was too slow must not release the claim of the other.
    first._renew("a")
    first.release("a")
    assert not claimant().try_claim("a")


@pytest.mark.usefixtures("on_other_machines")
def test_a_claim_that_is_renewed_stays(claimant: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "LEASE_S", 0.5)
    monkeypatch.setattr(claims, "RENEW_S", 0.1)
    first, second = claimant(), claimant()
    assert first.try_claim("a")
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        assert not second.try_claim("a")
        time.sleep(0.05)


def test_requests_that_are_repeated_do_not_lose_the_claim(claimant: Make, store: ObjectServer) -> None:
    store.faults("every=2&when=after")
    owner = claimant()
    for number in range(6):
        assert owner.try_claim(f"{number}")
        owner._renew(f"{number}")
        assert f"{number}" in owner._held


def test_a_damaged_claim_expires_like_others(
    claimant: Make, store: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "LEASE_S", 0.1)
    store.put("claims/a.json", b"{")
    owner = claimant()
    assert not owner.try_claim("a")
    time.sleep(0.2)
    assert owner.try_claim("a")
