"""The SQL of single operations, for programs that look into a bucket's table."""

from __future__ import annotations


class Queries:
    """Statements with ``{table}`` for the quoted table name; times are seconds since the epoch."""

    __module__ = "pyrate_limiter.buckets.postgres"

    CREATE_BUCKET_TABLE = """
    CREATE TABLE IF NOT EXISTS {table} (
        name VARCHAR, weight SMALLINT, item_timestamp TIMESTAMP
    )
    """
    CREATE_INDEX_ON_TIMESTAMP = """
    CREATE INDEX IF NOT EXISTS {index} ON {table} (item_timestamp)
    """
    COUNT = """
    SELECT COUNT(*) FROM {table}
    """
    PUT = """
    INSERT INTO {table} (name, weight, item_timestamp) VALUES (%s, %s, TO_TIMESTAMP(%s))
    """
    FLUSH = """
    DELETE FROM {table}
    """
    PEEK = """
    SELECT name, weight, (extract(epoch FROM item_timestamp::timestamptz) * 1000)::bigint
    FROM {table} ORDER BY item_timestamp DESC LIMIT 1 OFFSET {offset}
    """
    LEAK = """
    DELETE FROM {table} WHERE item_timestamp < TO_TIMESTAMP({timestamp})
    """
    LEAK_COUNT = """
    SELECT COUNT(*) FROM {table} WHERE item_timestamp < TO_TIMESTAMP({timestamp})
    """
    COUNT_WINDOW = """
    SELECT COUNT(*) FROM {table} WHERE item_timestamp >= TO_TIMESTAMP({timestamp})
    """
    LOCK_TABLE = """
    LOCK TABLE {table} IN EXCLUSIVE MODE NOWAIT
    """
