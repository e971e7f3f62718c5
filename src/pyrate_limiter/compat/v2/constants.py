"""The intervals of 2.x."""

__all__ = ["Duration"]


class Duration:
    """Common intervals, in seconds."""

    SECOND = 1
    MINUTE = 60
    HOUR = 3600
    DAY = 3600 * 24
    MONTH = 3600 * 24 * 30
