"""What a `RedisBucket` asks for besides reservations: holds, and units that are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrate_limiter._core.awaitables import then
from pyrate_limiter.abstracts.rate import RateItem
from pyrate_limiter.buckets.redis.commands import RedisSteps
from pyrate_limiter.buckets.redis.request import Head, Request, Script
from pyrate_limiter.buckets.redis.reservations import PATIENT_MS, check_in_reach, text_of

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.buckets.redis.request import Outcome

# Members that stand for what is held, and for the end of it, see log.lua.
_HELD = ("~hold+", "~hold")  # 4.5.1 may drop the latter alone, when it is over
_ENDED = "~hold-"
_NO_UNITS = f"({-PATIENT_MS}"  # all units are above this, and what has ended is below it

# What is held stays, whatever the time is.
_LEAK_SCRIPT = Script("""\
local key, call = KEYS[1], redis.call
local left, held = call('PTTL', key), {}
for _, name in ipairs({'~hold', '~hold+'}) do
  local moment = call('ZSCORE', key, name)
  if moment then held[#held + 1], held[#held + 2] = moment, name end
end
if held[1] then call('ZREM', key, '~hold', '~hold+') end
local gone = call('ZREMRANGEBYSCORE', key, ARGV[1], ARGV[2])
if held[1] then
  call('ZADD', key, unpack(held))
  if left > 0 then call('PEXPIRE', key, left) end
end
return {gone}
""")


class RedisUnits(RedisSteps):
    """Methods of `RedisBucket`."""

    __slots__ = ()

    def hold(self, item: RateItem, hold_ms: int) -> int | Awaitable[int]:
        """See `AbstractBucket.hold`. An outage is an error, whatever ``on_error`` says."""
        return then(self._hold(item, hold_ms), lambda outcome: outcome.wait)

    def release_hold(self, item: RateItem) -> bool | Awaitable[bool]:
        """See `AbstractBucket.release_hold`, and of an outage `hold`."""
        return then(self._hold(item, -1), lambda outcome: outcome.verdict > 0)

    def _hold(self, item: RateItem, hold_ms: int) -> Outcome | Awaitable[Outcome]:
        check_in_reach(item)
        stamp = self._stamp(item.timestamp)

        def ask() -> Program[Outcome]:
            head = self._head if stamp is None else (yield from self._head_at(stamp))
            outcome = yield from self._hold_from(head, hold_ms)
            self._learnt = None
            return outcome

        return self._server.run(ask())

    def count(self) -> int | Awaitable[int]:
        def ask() -> Program[int]:
            command = self._server.command
            units: int = yield from command("zcount", self.bucket_key, _NO_UNITS, "+inf")
            for name in _HELD:
                if (yield from command("zscore", self.bucket_key, name)) is None:
                    break
                units -= 1
            return units

        return self._server.run(ask())

    def peek(self, index: int) -> RateItem | Awaitable[RateItem | None] | None:
        def ask() -> Program[RateItem | None]:
            key, first = self.bucket_key, index if index >= 0 else 1 << 52
            command = self._server.command
            if (yield from command("zscore", key, _HELD[0])) is None:
                units = yield from command("zrevrange", key, first, first, withscores=True)
            else:
                last = first + len(_HELD)
                found = yield from command("zrevrange", key, 0, last, withscores=True)
                units = [unit for unit in found if text_of(unit[0]) not in _HELD][first:]
            for member, score in units:
                text = text_of(member)
                if text != _ENDED:
                    return RateItem(text.rsplit(":", 2)[0], int(score))
            return None

        return self._server.run(ask())

    def leak(self, current_timestamp: int | None = None) -> int | Awaitable[int]:
        """See `AbstractBucket.leak`. Without a time it does nothing, for the key expires itself."""

        def ask() -> Program[int]:
            if current_timestamp is None:
                return 0
            bound = f"({self._algorithm.leak_bound(self._rates, current_timestamp)}"
            head = Head(_LEAK_SCRIPT, self.bucket_key, (_NO_UNITS, bound))
            request = Request(head, [], self._server.limit(), shared=False)
            return (yield from self._server.ask(request))[0]

        return self._server.run(ask())

    def flush(self) -> Awaitable[None] | None:
        def ask() -> Program[None]:
            yield from self._server.command("unlink", self.bucket_key)
            self.failing_rate = self._full = self._learnt = None

        return self._server.run(ask())
