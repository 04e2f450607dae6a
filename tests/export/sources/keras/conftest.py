"""Keras reads its backend when it is imported, which the tests of this folder do."""

import os

os.environ["KERAS_BACKEND"] = "torch"
