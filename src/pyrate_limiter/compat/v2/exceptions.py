"""The exceptions of 2.x."""

from pyrate_limiter.compat.exceptions import (
    BucketFullException,
    ImmutableClassProperty,
    InvalidParams,
)

__all__ = ["BucketFullException", "ImmutableClassProperty", "InvalidParams"]
