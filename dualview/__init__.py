"""Dualview: an embedding feature store with vector search, made for multimodal sequential recommendation.

    from dualview import Store, materialize, fit, Retriever

Every name is loaded when it is first used (PEP 562), so that importing `dualview` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {  # public name -> the module it lives in
    "Store": "dualview.store",
    "materialize": "ingest.materialize",
    "fit": "dualview.training",
    "evaluate": "dualview.evaluation",
    "promote": "dualview.training",
    "Retriever": "recommender.retrieve",
    "DualviewError": "featurestore.errors",
}
__all__ = ["DualviewError", "Retriever", "Store", "__version__", "evaluate", "fit", "materialize", "promote"]

if TYPE_CHECKING:
    from dualview.evaluation import evaluate
    from dualview.store import Store
    from dualview.training import fit, promote
    from featurestore.errors import DualviewError
    from ingest.materialize import materialize
    from recommender.retrieve import Retriever


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dualview' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
