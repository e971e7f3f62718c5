"""One module with `pyrate_limiter.compat.exceptions`; here it was in 2.x and 3.x."""

import sys

from pyrate_limiter.compat import exceptions
from pyrate_limiter.compat.exceptions import *  # noqa: F403 - for checkers

sys.modules[__name__] = exceptions
