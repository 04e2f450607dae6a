"""What every test runs under: a busy machine may be slow, so no example of hypothesis is timed."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

TESTS = Path(__file__).parent
# The files that take a minute or so, the longest first: they begin first, so that none runs alone at the end.
LONGEST = (
    "service/scoring/engines/test_ray.py",
    "export/sources/huggingface/test_command.py",
    "service/server/test_hostile_bundles.py",
    "e2e/test_your_model.py",
    "faults/test_http_messages.py",
    "service/scoring/test_damage.py",
    "service/scoring/frameworks/test_snippets.py",
    "service/test_access.py",
    "service/scoring/test_object_storage.py",
    "service/scoring/engines/test_local.py",
    "service/test_tls.py",
    "export/gates/golden/test_gate.py",
    "service/test_main.py",
    "e2e/test_scoring.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {TESTS / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))
