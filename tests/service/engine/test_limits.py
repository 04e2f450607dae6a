"""What the settings say by default is what the engine holds to by default."""

from service.engine.limits import Limits
from service.settings import Settings


def test_the_defaults_are_said_once_in_effect() -> None:
    assert Settings.model_construct().limits == Limits()
