"""What every test runs under: a busy machine may be slow, so no example of hypothesis is timed."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

TESTS = Path(__file__).parent
# What takes longest begins first, so that nothing runs alone at the end. The files of a folder share what takes long to
# make, such as exported models or a server, so that one process runs all of them.
FIRST = (
    "service/scoring/engines/test_ray.py",
    "export/sources/huggingface",
    "export",
    "e2e",
    "service/server/test_hostile_bundles.py",
    "faults/test_http_messages.py",
    "service/scoring/test_damage.py",
    "service/scoring/frameworks/test_snippets.py",
    "service/scoring/test_object_storage.py",
    "service/scoring/engines/test_local.py",
    "service/test_access.py",
    "service/test_tls.py",
    "service/test_main.py",
    "clients",
    "ekiben/client",
)


@cache
def rank(path: Path) -> int:
    """The place in FIRST of a file of tests or of its folder, or the number behind the last place."""
    return next((i for i, name in enumerate(FIRST) if path.is_relative_to(TESTS / name)), len(FIRST))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: rank(item.path))


class SharedFixtures(LoadFileScheduling):  # type: ignore[misc]  # no types are installed
    """One process runs a file, or all files of a folder in FIRST."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        place = rank(TESTS.parent / file)
        return FIRST[place] if place < len(FIRST) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """The scheduler of `--dist loadfile`."""
    return SharedFixtures(config, log) if config.getoption("dist") == "loadfile" else None
