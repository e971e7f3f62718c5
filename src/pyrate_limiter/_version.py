"""The version of the distribution."""

__version__ = "4.6.0"
