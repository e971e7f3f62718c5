"""The SQLite backends under the conformance suite."""

import sqlite3

import pytest

from pyrate_limiter import FixedWindow, SQLiteBucket, SQLiteStateStore, StateBucket
from pyrate_limiter.testing import BucketConformance, StateStoreConformance


class TestSQLiteBucket(BucketConformance):
    reserves = True
    holds = True

    def make_bucket(self, rates):
        return SQLiteBucket.init_from_file(rates)


class TestSQLiteBucketWithFileLock(BucketConformance):
    reserves = True
    holds = True

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.folder, self.made = tmp_path, 0

    def make_bucket(self, rates):
        self.made += 1
        path = str(self.folder / f"{self.made}.db")
        return SQLiteBucket.init_from_file(rates, db_path=path, use_file_lock=True)


class TestSQLiteBucketFixedWindow(BucketConformance):
    reserves = True
    holds = True

    def make_bucket(self, rates):
        return SQLiteBucket.init_from_file(rates, algorithm=FixedWindow())


class TestHandedInConnection(BucketConformance):
    reserves = True
    holds = True

    @pytest.fixture(autouse=True)
    def _connections(self):
        self.connections = []
        yield
        for conn in self.connections:
            conn.close()

    def make_bucket(self, rates):
        conn = sqlite3.connect(":memory:", check_same_thread=False)
        conn.row_factory = sqlite3.Row
        self.connections.append(conn)
        return SQLiteBucket(rates, conn, 'it\'s a "table"; --')


class TestSQLiteStateStore(BucketConformance):
    reserves = True
    holds = True
    units = False

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.folder, self.made = tmp_path, 0

    def make_bucket(self, rates):
        self.made += 1
        store = SQLiteStateStore(self.folder / "states.db", f"key '{self.made}\"")
        return StateBucket(rates, store=store)


class TestStoreInFile(StateStoreConformance):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.folder, self.made = tmp_path, 0

    def make_store(self):
        self.made += 1
        return SQLiteStateStore(self.folder / "states.db", str(self.made), 'it\'s a "table"; --')


class TestStoreOverHandedInConnection(StateStoreConformance):
    @pytest.fixture(autouse=True)
    def _connection(self):
        self.conn, self.made = sqlite3.connect(":memory:"), 0
        self.conn.row_factory = sqlite3.Row
        yield
        self.conn.close()

    def make_store(self):
        self.made += 1
        return SQLiteStateStore(self.conn, str(self.made))
