"""This library and pyrate-limiter 4.5.1, side by side: ``python -m benchmarks``."""
