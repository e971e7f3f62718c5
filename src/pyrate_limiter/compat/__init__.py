"""The APIs of releases 2.x and 3.x, over the engine of this one.

`pyrate_limiter.compat.v3` and `pyrate_limiter.compat.v2` hold every public name of 3.9.0 and of
2.10.0. A file that was written for one of them needs one line changed: the import.
"""
