"""A recipe: everything that decides what a feature's values are, and nothing else, under one hash.

Device, batch size and library versions are recorded with a materialization, not here: the same recipe on another
machine is the same feature.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue, field_validator, model_validator

from featurestore.files import canonical_json, sha256_text
from featurestore.schema import IMAGE, ValueKind

COLUMN = "column:"
FEATURE = "feature:"
SHORT = 8  # characters of the hash that stand in table names and on screens


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class ModelRef(_Frozen):
    """Which weights: a hub id with its resolved revision, or a folder known by the hash of its content.

    A folder's path is no part of the identity (it may move), so `id` is its name.
    """

    id: str
    revision: str | None = None
    folder_sha256: str | None = None


class Recipe(_Frozen):
    """How one feature is made.

    inputs: "column:NAME", "image", or "feature:NAME@RECIPEID" with the upstream recipe's whole hash.
    options: prompts, preprocessing, normalisation: whatever changes the output.
    artifacts: name -> sha256 of fitted weights and the like, kept in the store's artifacts.
    code_version: raised whenever our code would give other values for the same recipe.
    required: groups of inputs; of each group one must be there. None given: any input will do.
    """

    kind: str
    inputs: tuple[str, ...]
    encoder: str
    model: ModelRef | None = None
    options: dict[str, JsonValue] = {}
    value: ValueKind = ValueKind.VECTOR
    dim: int | None = None
    artifacts: dict[str, str] = {}
    code_version: int = 1
    required: tuple[tuple[str, ...], ...] = ()

    @field_validator("inputs")
    @classmethod
    def _known_inputs(cls, inputs: tuple[str, ...]) -> tuple[str, ...]:
        if not inputs:
            raise ValueError("a recipe has at least one input")
        for name in inputs:
            if name != IMAGE and not name.startswith((COLUMN, FEATURE)):
                raise ValueError(f"'{name}' is neither 'image', 'column:NAME' nor 'feature:NAME@RECIPE'")
            if name.startswith(FEATURE) and "@" not in name:
                raise ValueError(f"'{name}' does not name the recipe of the feature it reads")
        return inputs

    @model_validator(mode="after")
    def _sized(self) -> Recipe:
        if (self.value is ValueKind.TEXT) != (self.dim is None):
            raise ValueError("a vector has a size (dim), a text has none")
        for group in self.required:
            if not group or not set(group) <= set(self.inputs):
                raise ValueError(f"'{', '.join(group)}' is required, but not an input")
        return self

    def canonical(self) -> dict[str, Any]:
        """What is hashed. Groups that are not there are left out: recipes had none before there were any."""
        return self.model_dump(mode="json", exclude=None if self.required else {"required"})

    @property
    def id(self) -> str:
        """sha256 of the canonical JSON. Not cached: a cached one would survive in an altered copy."""
        return sha256_text(canonical_json(self.canonical()))

    @property
    def short(self) -> str:
        return self.id[:SHORT]

    @property
    def columns(self) -> list[str]:
        """The catalogue's columns that are read, in order."""
        return [name.removeprefix(COLUMN) for name in self.inputs if name.startswith(COLUMN)]

    @property
    def upstream(self) -> list[tuple[str, str]]:
        """(feature, recipe id) of each feature that is read."""
        parts = [name.removeprefix(FEATURE).split("@", 1) for name in self.inputs if name.startswith(FEATURE)]
        return [(name, recipe) for name, recipe in parts]

    def table(self, feature: str) -> str:
        """Name of the table that holds this recipe's values of `feature`."""
        return table_name(feature, self.id)


def table_name(feature: str, recipe_id: str) -> str:
    return f"{feature}__{recipe_id[:SHORT]}"
