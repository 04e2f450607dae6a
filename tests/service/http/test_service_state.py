"""The running service provides everything that routes read."""

from starlette.testclient import TestClient

from service.http.service_state import ServiceState


def test_the_running_service_has_every_attribute_of_the_protocol(client: TestClient) -> None:
    from service.app import running

    service = running()
    assert [name for name in ServiceState.__annotations__ if not hasattr(service, name)] == []
