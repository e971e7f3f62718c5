"""How an acquisition runs."""
