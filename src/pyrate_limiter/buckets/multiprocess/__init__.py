"""Buckets shared by the processes of one host."""
