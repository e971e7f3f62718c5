"""What every test shares: the Hypothesis profiles.

``HYPOTHESIS_PROFILE`` chooses one; without it, ``ci`` where ``CI`` is set, else ``dev``.
"""

import os

from hypothesis import HealthCheck, settings

# No deadline and no complaint about slowness: on a busy machine both fail tests that are right.
# Each run draws new examples; print_blob gives the line that replays a failure.
COMMON = {
    "deadline": None,
    "derandomize": False,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow],
}

settings.register_profile("ci", max_examples=200, **COMMON)
settings.register_profile("dev", max_examples=50, **COMMON)
settings.register_profile("long", max_examples=5_000, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev"))
