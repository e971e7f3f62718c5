import multiprocessing

import pytest

from pyrate_limiter import (
    BucketAsyncWrapper,
    FixedWindow,
    MultiprocessBucket,
    MultiprocessStateStore,
    StateBucket,
)
from pyrate_limiter.testing import BucketConformance, StateStoreConformance


@pytest.fixture(scope="module")
def manager():
    with multiprocessing.get_context("spawn").Manager() as running:
        yield running


class TestSharedMemory(BucketConformance):
    reserves = True
    holds = True

    def make_bucket(self, rates):
        return MultiprocessBucket.init(rates)


class TestSharedMemoryFixedWindow(BucketConformance):
    reserves = True
    holds = True

    def make_bucket(self, rates):
        return MultiprocessBucket.init(rates, FixedWindow())


class TestWrappedSharedMemory(BucketConformance):
    reserves = True
    holds = True

    def make_bucket(self, rates):
        return BucketAsyncWrapper(MultiprocessBucket.init(rates))


class TestManagersList(BucketConformance):
    reserves = True
    holds = True

    @pytest.fixture(autouse=True)
    def _with(self, manager):
        self.manager = manager

    def make_bucket(self, rates):
        return MultiprocessBucket(rates, self.manager.list(), multiprocessing.RLock())


class TestStateInSharedMemory(BucketConformance):
    reserves = True
    holds = True
    units = False

    def make_bucket(self, rates):
        return StateBucket(rates, store=MultiprocessStateStore.init())


class TestStateInManagersList(BucketConformance):
    reserves = True
    holds = True
    units = False

    @pytest.fixture(autouse=True)
    def _with(self, manager):
        self.manager = manager

    def make_bucket(self, rates):
        store = MultiprocessStateStore(self.manager.list(), multiprocessing.RLock())
        return StateBucket(rates, store=store)


class TestStoreInSharedMemory(StateStoreConformance):
    def make_store(self):
        return MultiprocessStateStore.init()


class TestStoreInManagersList(StateStoreConformance):
    @pytest.fixture(autouse=True)
    def _with(self, manager):
        self.manager = manager

    def make_store(self):
        return MultiprocessStateStore(self.manager.list(), multiprocessing.RLock())
