"""What every test runs under: a busy machine may be slow, so no example of hypothesis is timed."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
