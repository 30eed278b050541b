"""One store for all tests that only ask, and one service over it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from featurestore.store import Store
from tests.recommender.serve import shelf


@pytest.fixture(scope="session")
def asked_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return shelf.build(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="session")
def served(asked_store: Store) -> Iterator[shelf.Served]:
    with shelf.serving(asked_store, max_k=50, max_body=200_000, max_pixels=1_000_000) as found:
        yield found
