"""From options to the tower they name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featurestore.errors import BadInput
from ingest.fuse.align import Temperature
from ingest.fuse.dual import DualView, Fusion
from ingest.fuse.scaling import Scaling
from ingest.fuse.stored import Stored, Tokens
from recommender.config import ID, Config
from recommender.items.concat import ConcatTower
from recommender.items.dual import DualTower
from recommender.items.esr import EsrTower
from recommender.items.features import FeaturesTower, FeatureTower
from recommender.items.ids import IdTower, InitTower, SharedIds

Towers = IdTower | FeaturesTower | ConcatTower | EsrTower | DualTower


@dataclass(frozen=True)
class Material:
    """What towers are made of. counts: (n,) training events. fitted: scalings of a model that was trained."""

    config: Config
    counts: npt.NDArray[np.int64]
    features: Mapping[str, Stored]
    fitted: Mapping[str, Scaling]

    @property
    def with_ids(self) -> bool:
        return ID in self.config.parts

    def ids(self, width: int) -> SharedIds | None:
        """The ids, where `items` names them, begun as `id_init` says."""
        if not self.with_ids:
            return None
        config = self.config
        ids = SharedIds(self.counts, width, dropout=config.id_dropout, gate=config.gate)
        if (config.id_init or ("pca" if config.tower == "llm-esr" else "normal")) == "pca":
            ids.start_from([self.features[name] for name in config.features])
        return ids

    def summed(self, width: int) -> list[FeatureTower]:
        config = self.config
        return [
            FeatureTower(
                name,
                self.features[name],
                width,
                adapter=config.adapter,
                scaling=config.scaling,
                scaling_dim=config.scaling_dim,
                scale=config.feature_scale,
                dropout=config.feature_dropout,
                fitted=self.fitted.get(name),
            )
            for name in config.features
        ]


def build(
    config: Config,
    counts: npt.NDArray[np.int64],
    features: Mapping[str, Stored],
    fitted: Mapping[str, Scaling] | None = None,
) -> Towers:
    """The tower that `config` names, over items with these training counts (n,).

    fitted: scalings of a model that was trained; without them they are fitted to the features.
    """
    for name in config.features:
        if name not in features:
            raise BadInput(
                f"items '{config.items}' names the feature '{name}', which was not given",
                remedy=f"given: {', '.join(features) or 'none'}; publish the feature, or train with --items id",
            )
        if len(features[name]) != len(counts):
            raise BadInput(f"feature '{name}' covers {len(features[name])} items of {len(counts)}")
        if name not in (fitted or {}) and config.scaling != "none" and len(features[name].known) < 2:
            raise BadInput(
                f"feature '{name}' has vectors of {len(features[name].known)} items: nothing can be learnt from it",
                remedy="materialize and publish the feature, or leave it out of --items",
            )
    return BUILDERS[config.tower](Material(config, counts, features, fitted or {}))


def _sum(given: Material) -> Towers:
    width = given.config.width
    if not given.config.features:
        return IdTower(given.counts, width)
    return FeaturesTower(given.summed(width), given.ids(width))


def _init(given: Material) -> Towers:
    return InitTower(given.config.features, given.features, given.counts, given.config.width)


def _concat(given: Material) -> Towers:
    config = given.config
    return ConcatTower(
        config.features,
        given.features,
        config.width,
        given.ids(config.width // 2),
        adapter=config.adapter,
        scaling=config.scaling,
        scaling_dim=config.scaling_dim,
        scale=config.feature_scale,
        dropout=config.feature_dropout,
        fitted=given.fitted,
    )


def _esr(given: Material) -> Towers:
    half = given.config.width // 2
    ids = given.ids(half)
    assert ids is not None  # the configuration sees to it
    return EsrTower(FeaturesTower(given.summed(half)), ids)


def _dual(given: Material) -> Towers:
    config = given.config
    several = [name for name in config.features if isinstance(given.features[name], Tokens)]
    fusion = Fusion(
        width=config.width // 2 if config.views == "concat" else config.width,
        heads=config.view_heads,
        adapter=config.adapter,
        attend=config.attend,
        residual=config.view_residual,
        norm=config.view_norm,
        pooling=config.pooling,
        dropout=config.feature_dropout,
        token_dropout=config.token_dropout,
        scaling=config.scaling,
        scaling_dim=config.scaling_dim,
    )
    view = DualView(
        given.features,
        [name for name in config.features if name not in several],
        several,
        fusion,
        given.fitted,
    )
    if config.align != "none" and config.align_weight:
        view.warn_of_alignment()
    return DualTower(
        view,
        given.ids(config.width),
        Temperature(config.align_temperature, config.align_learned),
        side_by_side=config.views == "concat",
        scale=config.feature_scale,
        align="infonce" if config.align == "none" else config.align,
    )


BUILDERS = {"sum": _sum, "init": _init, "concat": _concat, "llm-esr": _esr, "dmesr": _dual}
