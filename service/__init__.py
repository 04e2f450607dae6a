"""The service, its engine and the scoring of files.

Some dependencies send usage reports unless an environment variable disables them, onnxruntime as soon as it is
imported. To allow reports, set the variable first.
"""

import os

for _switch, _off in {
    "ORT_DISABLE_TELEMETRY": "1",
    "BENTOML_DO_NOT_TRACK": "True",
    "RAY_USAGE_STATS_ENABLED": "0",
}.items():
    os.environ.setdefault(_switch, _off)
