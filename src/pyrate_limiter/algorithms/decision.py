"""The verdict on one item."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from pyrate_limiter._core.rates import Rate

_set = object.__setattr__


class Decision:
    """What a bucket says about an item; true when it is admitted.

    Attributes:
        failing_rate: the rate that refused, None when the item is admitted.
        retry_after_ms: after a refusal, milliseconds until the weight fits. None means that this is
            unknown, or that the weight can never fit.
        wait_ms: of an admitted item, how long its caller has yet to sleep: its units are stored
            for that moment. 0 is "go now".
        remaining: units still free now under the tightest rate; None where this was not asked.
        reset_after_ms: milliseconds until nothing in the bucket counts any more; None as above.
    """

    __slots__ = ("failing_rate", "remaining", "reset_after_ms", "retry_after_ms", "wait_ms")

    failing_rate: Rate | None
    retry_after_ms: int | None
    wait_ms: int
    remaining: int | None
    reset_after_ms: int | None

    def __init__(
        self,
        failing_rate: Rate | None = None,
        retry_after_ms: int | None = None,
        wait_ms: int = 0,
        remaining: int | None = None,
        reset_after_ms: int | None = None,
    ) -> None:
        _set(self, "failing_rate", failing_rate)
        _set(self, "retry_after_ms", retry_after_ms)
        _set(self, "wait_ms", wait_ms)
        _set(self, "remaining", remaining)
        _set(self, "reset_after_ms", reset_after_ms)

    @property
    def allowed(self) -> bool:
        """Whether the item was admitted."""
        return self.failing_rate is None

    def __bool__(self) -> bool:
        return self.failing_rate is None

    def _values(self) -> tuple[object, ...]:
        return (
            self.failing_rate,
            self.retry_after_ms,
            self.wait_ms,
            self.remaining,
            self.reset_after_ms,
        )

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if isinstance(other, Decision) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        text = f"failing_rate={self.failing_rate}, retry_after_ms={self.retry_after_ms}"
        if self.wait_ms:
            text += f", wait_ms={self.wait_ms}"
        if self.remaining is not None:
            text += f", remaining={self.remaining}, reset_after_ms={self.reset_after_ms}"
        return f"Decision({text})"

    def __reduce__(self) -> tuple[type[Decision], tuple[object, ...]]:
        return type(self), self._values()

    def __setattr__(self, field: str, value: object) -> NoReturn:
        msg = f"cannot assign to field {field!r}: a Decision is a value"
        raise AttributeError(msg)

    def __delattr__(self, field: str) -> NoReturn:
        msg = f"cannot delete field {field!r}: a Decision is a value"
        raise AttributeError(msg)


ADMITTED = Decision()
