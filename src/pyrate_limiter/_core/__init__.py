"""What all parts stand on: locks, threads, time, rates, and the cleaning of buckets."""
