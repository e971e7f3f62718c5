"""What buckets on a server have in common: outages, and what is answered meanwhile."""
