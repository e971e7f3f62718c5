"""The SQL of a `RowLog`. Each statement is one step, and short enough to read in one look."""

from __future__ import annotations

from functools import lru_cache

SIDE_TABLES = (
    # Reservations whose waiters have still to go: units by moment, in ms.
    (
        "CREATE TABLE IF NOT EXISTS pyrate_limiter_reservations "
        "(bucket TEXT NOT NULL, key TEXT NOT NULL,"
        " moment INTEGER NOT NULL, units INTEGER NOT NULL, PRIMARY KEY (bucket, key, moment)) "
        "WITHOUT ROWID"
    ),
    # How far the clock had come when something was last reserved, its moment, and by how
    # much the clock has stepped back in all.
    (
        "CREATE TABLE IF NOT EXISTS pyrate_limiter_clocks (bucket TEXT NOT NULL, key TEXT NOT NULL,"
        " latest INTEGER NOT NULL, moment INTEGER NOT NULL, stepped INTEGER NOT NULL, "
        "PRIMARY KEY (bucket, key)) WITHOUT ROWID"
    ),
    # Until when nothing is admitted, and how long that was to last, in ms.
    (
        "CREATE TABLE IF NOT EXISTS pyrate_limiter_holds (bucket TEXT NOT NULL, key TEXT NOT NULL,"
        " until INTEGER NOT NULL, length INTEGER NOT NULL, PRIMARY KEY (bucket, key)) "
        "WITHOUT ROWID"
    ),
    # How many ms some program looks back, and until when that is to be heeded.
    (
        "CREATE TABLE IF NOT EXISTS pyrate_limiter_lookbacks (bucket TEXT NOT NULL, "
        "back INTEGER NOT NULL, until INTEGER NOT NULL, PRIMARY KEY (bucket, back)) WITHOUT ROWID"
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
        number, where, every = ("seq", "name = ? AND", "name = ?") if keyed else ("rowid", "", "1")
        key = "?" if keyed else "''"
        text = quoted(table, "'")
        its = f"bucket = {text}"
        mine = f"{its} AND key = {key}"
        self.index: str = (
            f"CREATE INDEX IF NOT EXISTS {quoted(table + '_item_timestamp')} "
            f"ON {name} (item_timestamp)"
        )
        if keyed:
            self.create: str = (
                f"CREATE TABLE IF NOT EXISTS {name} (name VARCHAR NOT NULL, seq INTEGER NOT NULL, "
                "item_timestamp INTEGER NOT NULL, PRIMARY KEY (name, seq)) WITHOUT ROWID;"
            )
        else:
            self.create = (
                f"CREATE TABLE IF NOT EXISTS {name} (name VARCHAR, item_timestamp INTEGER);"
            )
        self.exists: str = f"SELECT 1 FROM {name} LIMIT 1"
        # Reading. The plus keeps SQLite from walking along an index on the timestamp instead.
        self.since: str = (
            f"SELECT {number}, item_timestamp FROM {name} WHERE {where} {number} >= ? "
            f"ORDER BY {number}"
        )
        between = f"{where} {number} > ? AND {number} <= ?"
        self.units: str = (
            f"SELECT name, item_timestamp FROM {name} WHERE {between} ORDER BY {number}"
        )
        self.stamp: str = f"SELECT item_timestamp FROM {name} WHERE {where} {number} = ?"
        self.first_since: str = (
            f"SELECT {number} FROM {name} WHERE {where} {number} >= ? AND +item_timestamp >= ? "
            f"ORDER BY {number} LIMIT 1"
        )
        self.last: str = (
            f"SELECT {number}, item_timestamp FROM {name} WHERE {every} "
            f"ORDER BY {number} DESC LIMIT 1"
        )
        self.first: str = f"SELECT MIN({number}) FROM {name} WHERE {every}"
        self.count: str = (
            f"SELECT COUNT(*) FROM {name} WHERE {every}"
            if keyed
            # One query for both ends would read every row.
            else f"SELECT COALESCE((SELECT MAX(rowid) FROM {name}) + 1 "
            f"- (SELECT MIN(rowid) FROM {name}), 0)"
        )
        # Writing. Without the scope: the name is among the values.
        into = f"INSERT INTO {name} ({number}, name, item_timestamp)"
        self.insert: str = f"{into} VALUES (?, ?, ?)"
        self.insert_many: str = (
            f"{into} WITH RECURSIVE n (i) AS (SELECT ? UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " SELECT i, ?, ? FROM n"
        )
        # Name and timestamp, then the scope and the number.
        self.replace: str = (
            f"UPDATE {name} SET name = ?, item_timestamp = ? WHERE {where} {number} = ?"
        )
        self.drop: str = f"DELETE FROM {name} WHERE {between}"
        # By how much, then the scope and the number.
        self.close_gap: str = (
            f"UPDATE {name} SET {number} = {number} - ? WHERE {where} {number} > ?"
        )
        # The earliest time and by how much, then the scope and the time after which.
        self.shift: str = (
            f"UPDATE {name} SET item_timestamp = MAX(?, item_timestamp - ?) "
            f"WHERE {every} AND item_timestamp > ?"
        )
        # Of all names at once: the index finds what is expired, so many at a time.
        self.drop_expired: str = (
            f"DELETE FROM {name} WHERE (name, seq) IN (SELECT name, seq FROM {name} "
            "WHERE item_timestamp < ? ORDER BY item_timestamp LIMIT ?)"
        )
        self.drop_quiet: tuple[str, ...] = tuple(
            f"DELETE FROM {side} WHERE {its} AND NOT EXISTS (SELECT 1 FROM {name} WHERE name = key)"
            for side in ("pyrate_limiter_reservations", "pyrate_limiter_clocks")
        )
        # How far back programs look: of all names at once.
        notes = "pyrate_limiter_lookbacks"
        self.lookback: str = f"SELECT until FROM {notes} WHERE {its} AND back = ?"
        self.set_lookback: str = f"INSERT OR REPLACE INTO {notes} VALUES ({text}, ?, ?)"
        self.drop_old_lookbacks: str = f"DELETE FROM {notes} WHERE {its} AND until < ?"
        self.furthest: str = f"SELECT MAX(back) FROM {notes} WHERE {its} AND back > ? AND until > ?"
        # Reservations to come.
        pending = "pyrate_limiter_reservations"
        self.pending: str = f"SELECT moment, units FROM {pending} WHERE {mine} ORDER BY moment"
        self.pending_at: str = f"SELECT units FROM {pending} WHERE {mine} AND moment = ?"
        self.pending_after: str = (
            f"SELECT COALESCE(SUM(units), 0) FROM {pending} WHERE {mine} AND moment > ?"
        )
        self.last_pending: str = f"SELECT MAX(moment) FROM {pending} WHERE {mine}"
        self.add_pending: str = (
            f"INSERT INTO {pending} VALUES ({text}, {key}, ?, ?) "
            "ON CONFLICT (bucket, key, moment) DO UPDATE SET units = units + excluded.units"
        )
        self.drop_pending: str = f"DELETE FROM {pending} WHERE {mine} AND moment = ?"
        self.drop_old_pending: str = f"DELETE FROM {pending} WHERE {mine} AND moment < ?"
        self.flush_pending: str = f"DELETE FROM {pending} WHERE {mine}"
        clocks = "pyrate_limiter_clocks"
        self.clock: str = f"SELECT latest, moment, stepped FROM {clocks} WHERE {mine}"
        self.hold: str = f"SELECT until, length FROM pyrate_limiter_holds WHERE {mine}"
        self.set_hold: str = (
            f"INSERT OR REPLACE INTO pyrate_limiter_holds VALUES ({text}, {key}, ?, ?)"
        )
        self.drop_hold: str = f"DELETE FROM pyrate_limiter_holds WHERE {mine}"
        self.drop_old_holds: str = f"DELETE FROM pyrate_limiter_holds WHERE {its} AND until < ?"
        self.set_clock: str = f"INSERT OR REPLACE INTO {clocks} VALUES ({text}, {key}, ?, ?, ?)"


@lru_cache(maxsize=64)
def statements(table: str, *, keyed: bool = False) -> Statements:
    """The statements for a table, made once."""
    return Statements(table, keyed=keyed)
