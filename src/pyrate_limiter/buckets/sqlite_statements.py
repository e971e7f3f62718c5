"""The SQL of a `RowLog`. Each statement is one step, and short enough to read in one look."""

from __future__ import annotations

from functools import lru_cache

SIDE_TABLES = (
    # Claims whose waiters have still to go: units by moment, in ms.
    (
        "CREATE TABLE IF NOT EXISTS pyrate_limiter_claims (bucket TEXT NOT NULL, key TEXT NOT NULL,"
        " moment INTEGER NOT NULL, units INTEGER NOT NULL, PRIMARY KEY (bucket, key, moment)) "
        "WITHOUT ROWID"
    ),
    # How far the clock had come when a claim was last made, the last claim's moment, and by how
    # much the clock has stepped back in all.
    (
        "CREATE TABLE IF NOT EXISTS pyrate_limiter_clocks (bucket TEXT NOT NULL, key TEXT NOT NULL,"
        " latest INTEGER NOT NULL, moment INTEGER NOT NULL, stepped INTEGER NOT NULL, "
        "PRIMARY KEY (bucket, key)) WITHOUT ROWID"
    ),
)


def quoted(identifier: str, mark: str = '"') -> str:
    """An identifier, or with ``mark`` an apostrophe a text, as SQL writes it."""
    return mark + identifier.replace(mark, mark * 2) + mark


class Statements:
    """The statements for one table.

    Parameters are given in the order of the text; those of ``scope`` come first unless a comment
    says otherwise.

    Args:
        table: its name; any characters are safe.
        keyed: whether the table holds a log for each name, numbered in ``seq``. Otherwise it is one
            log, numbered by ``rowid``.
    """

    def __init__(self, table: str, *, keyed: bool = False) -> None:
        name = quoted(table)
        number, where = ("seq", "name = ? AND") if keyed else ("rowid", "")
        every = "name = ?" if keyed else "1"
        mine = f"bucket = {quoted(table, chr(39))} AND key = " + ("?" if keyed else "''")
        key = f"{quoted(table, chr(39))}, " + ("?" if keyed else "''")
        self.index = (
            f"CREATE INDEX IF NOT EXISTS {quoted(table + '_item_timestamp')} "
            f"ON {name} (item_timestamp)"
        )
        if keyed:
            self.create = (
                f"CREATE TABLE IF NOT EXISTS {name} (name VARCHAR NOT NULL, seq INTEGER NOT NULL, "
                "item_timestamp INTEGER NOT NULL, PRIMARY KEY (name, seq)) WITHOUT ROWID;"
            )
        else:
            self.create = (
                f"CREATE TABLE IF NOT EXISTS {name} (name VARCHAR, item_timestamp INTEGER);"
            )
        self.exists = f"SELECT 1 FROM {name} LIMIT 1"
        # Reading. The plus keeps SQLite from walking along an index on the timestamp instead.
        units = f"SELECT {number}, name, item_timestamp FROM {name} WHERE {where} {number} > ?"
        self.since = (
            f"SELECT {number}, item_timestamp FROM {name} WHERE {where} {number} >= ? "
            f"ORDER BY {number}"
        )
        self.units = f"{units} ORDER BY {number}"
        self.units_between = f"{units} AND {number} <= ? ORDER BY {number}"
        self.stamp = f"SELECT item_timestamp FROM {name} WHERE {where} {number} = ?"
        self.name = f"SELECT name FROM {name} WHERE {where} {number} = ?"
        self.first_since = (
            f"SELECT {number} FROM {name} WHERE {where} {number} >= ? AND +item_timestamp >= ? "
            f"ORDER BY {number} LIMIT 1"
        )
        self.last = (
            f"SELECT {number}, item_timestamp FROM {name} WHERE {every} "
            f"ORDER BY {number} DESC LIMIT 1"
        )
        self.first = f"SELECT MIN({number}) FROM {name} WHERE {every}"
        self.count = (
            f"SELECT COUNT(*) FROM {name} WHERE {every}"
            if keyed
            # One query for both ends would read every row.
            else f"SELECT COALESCE((SELECT MAX(rowid) FROM {name}) + 1 "
            f"- (SELECT MIN(rowid) FROM {name}), 0)"
        )
        # Writing. Without the scope: the name is among the values.
        into = f"INSERT INTO {name} ({number}, name, item_timestamp)"
        self.insert = f"{into} VALUES (?, ?, ?)"
        self.insert_many = (
            f"{into} WITH RECURSIVE n (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)"
            " SELECT i, ?3, ?4 FROM n"
        )
        # Name and timestamp, then the scope and the number.
        self.replace = f"UPDATE {name} SET name = ?, item_timestamp = ? WHERE {where} {number} = ?"
        self.drop_before = f"DELETE FROM {name} WHERE {where} {number} <= ?"
        self.drop_after = f"DELETE FROM {name} WHERE {where} {number} > ?"
        self.drop_between = f"DELETE FROM {name} WHERE {where} {number} > ? AND {number} <= ?"
        # By how much, then the scope and the number.
        self.close_gap = f"UPDATE {name} SET {number} = {number} - ? WHERE {where} {number} > ?"
        self.shift = f"UPDATE {name} SET item_timestamp = item_timestamp - ? WHERE {every}"
        self.flush = f"DELETE FROM {name} WHERE {every}"
        # Of all names at once: the index finds what is expired, so many at a time.
        self.drop_expired = (
            f"DELETE FROM {name} WHERE (name, seq) IN (SELECT name, seq FROM {name} "
            "WHERE item_timestamp < ? ORDER BY item_timestamp LIMIT ?)"
        )
        its = f"bucket = {quoted(table, chr(39))}"
        self.drop_quiet = tuple(
            f"DELETE FROM {side} WHERE {its} AND NOT EXISTS (SELECT 1 FROM {name} WHERE name = key)"
            for side in ("pyrate_limiter_claims", "pyrate_limiter_clocks")
        )
        # Claims to come.
        claims = "pyrate_limiter_claims"
        self.claims = f"SELECT moment, units FROM {claims} WHERE {mine} ORDER BY moment"
        self.claim = f"SELECT units FROM {claims} WHERE {mine} AND moment = ?"
        self.last_claim = f"SELECT MAX(moment) FROM {claims} WHERE {mine}"
        self.add_claim = (
            f"INSERT INTO {claims} VALUES ({key}, ?, ?) "
            "ON CONFLICT (bucket, key, moment) DO UPDATE SET units = units + excluded.units"
        )
        self.drop_claim = f"DELETE FROM {claims} WHERE {mine} AND moment = ?"
        self.drop_claims = f"DELETE FROM {claims} WHERE {mine} AND moment < ?"
        self.flush_claims = f"DELETE FROM {claims} WHERE {mine}"
        clocks = "pyrate_limiter_clocks"
        self.clock = f"SELECT latest, moment, stepped FROM {clocks} WHERE {mine}"
        self.set_clock = f"INSERT OR REPLACE INTO {clocks} VALUES ({key}, ?, ?, ?)"
        self.drop_clock = f"DELETE FROM {clocks} WHERE {mine}"


@lru_cache(maxsize=64)
def statements(table: str, *, keyed: bool = False) -> Statements:
    """The statements for a table, made once."""
    return Statements(table, keyed=keyed)
