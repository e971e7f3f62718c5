"""A few numbers per key and their rules, wherever they are kept."""
