"""Measurements."""

import service as service  # what is measured reports to nobody, as in service
