"""Waiters on a state under a clock that is moved by hand."""

from pyrate_limiter import RateItem

START = 1_700_000_000_000
FOR_EVER = 1 << 40


def reserve(bucket, name="a"):
    return bucket.reserve(RateItem(name, bucket.now()), FOR_EVER, 0)


def depart(bucket, reservations):
    """Let waiters go as they can, in their order of moments; when each went, from the start."""
    went, waiting = [], list(reservations)
    while waiting:
        item = min((each.item for each in waiting), key=lambda item: item.timestamp)
        place = next(place for place, each in enumerate(waiting) if each.item is item)
        bucket._clock.set(max(bucket.now(), int(item.timestamp)))
        waiting[place] = bucket.confirm(waiting[place], bucket.now(), FOR_EVER)
        if not waiting[place].wait_ms:
            went.append((item.name, bucket.now() - START))
            del waiting[place]
    return went
