"""A log of units and its rules, wherever the units are kept."""
