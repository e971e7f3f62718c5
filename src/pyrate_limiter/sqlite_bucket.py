"""One module with `pyrate_limiter.compat.v2.sqlite_bucket`; here it was in 2.x."""

import sys

from pyrate_limiter.compat.v2 import sqlite_bucket
from pyrate_limiter.compat.v2.sqlite_bucket import *  # noqa: F403 - for checkers

sys.modules[__name__] = sqlite_bucket
