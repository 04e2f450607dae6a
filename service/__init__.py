"""The service, its engine and the scoring of files.

Several libraries beneath report their use to their makers unless told not to, onnxruntime from the moment that it is
imported. Whoever wants that sets the variable before.
"""

import os

for _switch, _off in {
    "ORT_DISABLE_TELEMETRY": "1",
    "BENTOML_DO_NOT_TRACK": "True",
    "RAY_USAGE_STATS_ENABLED": "0",
}.items():
    os.environ.setdefault(_switch, _off)
