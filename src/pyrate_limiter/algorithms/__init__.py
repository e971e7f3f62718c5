"""The pure policies: no I/O, no clock, no lock."""
