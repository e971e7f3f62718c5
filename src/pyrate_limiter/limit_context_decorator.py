"""One module with `pyrate_limiter.compat.v2.limit_context_decorator`; here it was in 2.x."""

import sys

from pyrate_limiter.compat.v2 import limit_context_decorator
from pyrate_limiter.compat.v2.limit_context_decorator import *  # noqa: F403 - for checkers

sys.modules[__name__] = limit_context_decorator
