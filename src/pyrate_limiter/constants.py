"""One module with `pyrate_limiter.compat.v2.constants`; here it was in 2.x."""

import sys

from pyrate_limiter.compat.v2 import constants
from pyrate_limiter.compat.v2.constants import *  # noqa: F403 - for checkers

sys.modules[__name__] = constants
