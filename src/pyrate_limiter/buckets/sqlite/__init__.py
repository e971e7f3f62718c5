"""Buckets in a SQLite database."""
