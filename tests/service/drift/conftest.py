"""The models of the tiny bundles, which the tests of scoring use too."""

from tests.service.scoring.conftest import models

__all__ = ["models"]
