"""One module with `pyrate_limiter.compat.v2.bucket`; here it was in 2.x."""

import sys

from pyrate_limiter.compat.v2 import bucket
from pyrate_limiter.compat.v2.bucket import *  # noqa: F403 - for checkers

sys.modules[__name__] = bucket
