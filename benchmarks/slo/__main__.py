"""The highest rate at which a service keeps a latency bound: `ekiben bench`.

python -m benchmarks.slo --url http://127.0.0.1:3000 --model mnist-cnn --p99-ms 20
"""

import sys

from ekiben.bench.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
