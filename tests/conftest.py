"""Fixtures that several folders of tests share."""

from __future__ import annotations

import os
from pathlib import Path

# before torch and FAISS bring an OpenMP each: idle threads that spin make both many times slower on a busy machine
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import pytest
from hypothesis import settings

from featurestore.store import Store

# a busy machine is no failure; a test that hangs is ended by whoever runs it
settings.register_profile("dualview", deadline=None)
settings.load_profile("dualview")

TWO_FEATURES = """
[features.text]
kind = "embed_text"
inputs = ["text"]
encoder = "tfidf_svd"

[features.image]
kind = "embed_image"
inputs = ["image"]
encoder = "color_texture"
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store with a text and an image feature."""
    return Store.create(tmp_path / "store", TWO_FEATURES)
