"""What ``python -m pyrate_limiter`` runs."""
