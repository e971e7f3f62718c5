"""A pool of processes that together keep to one rate.

The bucket lives in shared memory. Each worker process is handed it once, by the pool's initializer,
and finds its limiter in ``limiter_factory.LIMITER``.
"""

import time
from concurrent.futures import ProcessPoolExecutor

from pyrate_limiter import MultiprocessBucket, Rate, limiter_factory

RATE = Rate(20, 500)  # 20 calls in any 500 ms, by all workers together
CALLS = 40


def call(number: int) -> float:
    """Stands for a request to a service that limits its callers."""
    limiter = limiter_factory.LIMITER
    if limiter is None or not limiter.try_acquire("service"):
        message = f"call {number} was not admitted"
        raise RuntimeError(message)
    return time.monotonic()


def main() -> None:
    with (
        MultiprocessBucket.init([RATE]) as bucket,
        ProcessPoolExecutor(
            max_workers=4, initializer=limiter_factory.init_global_limiter, initargs=(bucket,)
        ) as pool,
    ):
        moments = sorted(pool.map(call, range(CALLS)))
    print(f"{CALLS} calls in {moments[-1] - moments[0]:.2f} s, {RATE.limit} in any 0.5 s")


if __name__ == "__main__":
    main()
