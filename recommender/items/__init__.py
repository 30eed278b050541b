"""Item towers: what an item is to the model. A backbone knows none of this; it gets vectors.

| `tower` | an item is | file |
|---|---|---|
| `sum` | its id's vector, its features through adapters, or both added | `ids`, `features` |
| `init` | its id's vector, which begins as a PCA of its features (LLMInit) | `ids` |
| `concat` | its id's vector beside its features' joint one | `concat` |
| `llm-esr` | two views: its features through an adapter, and its id | `esr` |
| `dmesr` | two views, each coarse and fine tokens fused by attention, plus its id | `dual` |
"""

from ingest.fuse.scaling import Scaling, kept_scalings, principal
from ingest.fuse.stored import Float32, Stored, Tokens, Vectors
from recommender.items.base import Tower
from recommender.items.build import build
from recommender.items.concat import ConcatTower
from recommender.items.dual import DualTower
from recommender.items.esr import EsrTower
from recommender.items.features import FeaturesTower, FeatureTower
from recommender.items.ids import IdTower, InitTower

__all__ = [
    "ConcatTower",
    "DualTower",
    "EsrTower",
    "FeatureTower",
    "FeaturesTower",
    "Float32",
    "IdTower",
    "InitTower",
    "Scaling",
    "Stored",
    "Tokens",
    "Tower",
    "Vectors",
    "build",
    "kept_scalings",
    "principal",
]
