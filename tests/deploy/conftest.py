"""The bundles of the tests of the service."""

from tests.service.conftest import served_bundles

__all__ = ["served_bundles"]
