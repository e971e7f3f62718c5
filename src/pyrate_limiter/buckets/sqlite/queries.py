"""The SQL of the stored format, for programs that read or look after the table themselves."""

from __future__ import annotations


class SQLiteQueries:
    """Statements on the table of a `SQLiteBucket`; fill in the names with ``str.format``."""

    __module__ = "pyrate_limiter.buckets.sqlite_bucket"

    CREATE_BUCKET_TABLE = (
        "CREATE TABLE IF NOT EXISTS '{table}' (name VARCHAR, item_timestamp INTEGER)"
    )
    CREATE_INDEX_ON_TIMESTAMP = (
        "CREATE INDEX IF NOT EXISTS '{index_name}' ON '{table_name}' (item_timestamp)"
    )
    COUNT_BEFORE_INSERT = (
        "SELECT :interval{index} AS interval, COUNT(*) FROM '{table}' "
        "WHERE item_timestamp >= :start{index}"
    )
    PUT_ITEM = "INSERT INTO '{table}' (name, item_timestamp) VALUES (?, ?)"
    LEAK = (
        "DELETE FROM '{table}' WHERE rowid IN "
        "(SELECT rowid FROM '{table}' ORDER BY item_timestamp, rowid LIMIT {count})"
    )
    COUNT_BEFORE_LEAK = "SELECT COUNT(*) FROM '{table}' WHERE item_timestamp < {lower_bound}"
    FLUSH = "DELETE FROM '{table}'"
    DROP_TABLE = "DROP TABLE IF EXISTS '{table}'"
    DROP_INDEX = "DROP INDEX IF EXISTS '{index}'"
    COUNT_ALL = "SELECT COUNT(*) FROM '{table}'"
    GET_ALL_ITEM = "SELECT * FROM '{table}' ORDER BY item_timestamp ASC"
    GET_FIRST_ITEM = (
        "SELECT name, item_timestamp FROM '{table}' ORDER BY item_timestamp, rowid LIMIT 1"
    )
    GET_LAG = (
        "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) "
        "- MIN(item_timestamp) FROM '{table}'"
    )
    PEEK = "SELECT * FROM '{table}' ORDER BY item_timestamp DESC, rowid DESC LIMIT 1 OFFSET {count}"
