"""One module with `pyrate_limiter.compat.v2.request_rate`; here it was in 2.x."""

import sys

from pyrate_limiter.compat.v2 import request_rate
from pyrate_limiter.compat.v2.request_rate import *  # noqa: F403 - for checkers

sys.modules[__name__] = request_rate
