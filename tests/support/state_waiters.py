"""Waiters on a state under a clock that is moved by hand."""

from pyrate_limiter import RateItem

START = 1_700_000_000_000
FOR_EVER = 1 << 40


def claim(bucket, name="a"):
    item = RateItem(name, bucket.now())
    assert bucket.claim(item, FOR_EVER, 0).allowed
    return item


def depart(bucket, items):
    """Let waiters go as they can, in their order of moments; when each went, from the start."""
    went, waiting = [], list(items)
    while waiting:
        item = min(waiting, key=lambda each: each.timestamp)
        bucket._clock.set(max(bucket.now(), int(item.timestamp)))
        if not bucket.settle(item, bucket.now(), FOR_EVER).wait_ms:
            went.append((item.name, bucket.now() - START))
            waiting.remove(item)
    return went
