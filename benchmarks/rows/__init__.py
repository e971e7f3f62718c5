"""The rows of the table. Each module here is found by itself: a new backend is a new file."""
