from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from featurestore.recipe import ModelRef, Recipe
from featurestore.schema import ValueKind

FIELDS: dict[str, Any] = {
    "kind": "embed_text",
    "inputs": ("column:title", "image", "feature:story@" + "a" * 64),
    "encoder": "sentence",
    "model": ModelRef(id="all-MiniLM-L6-v2", revision="abc"),
    "options": {"prompt": "é", "dim": 3, "nested": {"b": [1, 2.5, None, True], "a": "x"}},
    "value": ValueKind.VECTOR,
    "dim": 384,
    "artifacts": {"vocabulary": "b" * 64},
    "code_version": 2,
    "required": (),
}
GOLDEN = "da4b4f0505e69de16cac1b43c69a198d778156fd22ba133ed7e16f158df32826"


def test_the_id_is_the_same_on_every_machine_and_in_every_version() -> None:
    """A changed id would orphan every table there is: change this value only with the store's format."""
    assert Recipe(**FIELDS).id == GOLDEN


def test_the_id_does_not_hang_on_the_order_of_keys() -> None:
    nested = {"a": "x", "b": [1, 2.5, None, True]}
    turned = {"nested": nested, "dim": 3, "prompt": "é"}
    assert Recipe(**FIELDS | {"options": turned}).id == Recipe(**FIELDS).id


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "embed_image"},
        {"inputs": ("image", "column:title", "feature:story@" + "a" * 64)},
        {"inputs": ("column:title", "image", "feature:story@" + "c" * 64)},
        {"encoder": "open_clip"},
        {"model": None},
        {"model": ModelRef(id="all-MiniLM-L6-v2", revision="abd")},
        {"model": ModelRef(id="all-MiniLM-L6-v2", revision="abc", folder_sha256="0")},
        {"options": {}},
        {"options": {"prompt": "e", "dim": 3, "nested": {"b": [1, 2.5, None, True], "a": "x"}}},
        {"options": {"prompt": "é", "dim": "3", "nested": {"b": [1, 2.5, None, True], "a": "x"}}},
        {"options": {"prompt": "é", "dim": 3, "nested": {"b": [2.5, 1, None, True], "a": "x"}}},
        {"value": ValueKind.VECTORS},
        {"dim": 383},
        {"artifacts": {"vocabulary": "c" * 64}},
        {"code_version": 3},
        {"required": (("image",),)},
        {"required": (("image", "column:title"),)},
    ],
)
def test_the_id_changes_with_each_field(change: dict[str, Any]) -> None:
    assert Recipe(**FIELDS | change).id != GOLDEN


def test_every_field_of_a_recipe_is_tried_above() -> None:
    assert set(FIELDS) == set(Recipe.model_fields)


def test_a_recipe_read_back_from_json_is_the_same() -> None:
    recipe = Recipe(**FIELDS)
    again = Recipe.model_validate_json(recipe.model_dump_json())
    assert again == recipe
    assert again.id == recipe.id
    assert Recipe.model_validate(recipe.canonical()).id == recipe.id


def test_groups_that_are_required_are_read_back_and_must_be_inputs() -> None:
    recipe = Recipe(**FIELDS | {"required": (("image",), ("column:title",))})
    assert Recipe.model_validate(recipe.canonical()) == recipe
    for wrong in ((("column:brand",),), ((),)):
        with pytest.raises(ValidationError, match="is required, but not an input"):
            Recipe(**FIELDS | {"required": wrong})


def test_an_altered_copy_has_its_own_id() -> None:
    recipe = Recipe(**FIELDS)
    assert recipe.id != recipe.model_copy(update={"dim": 5}).id


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"inputs": ()}, "at least one input"),
        ({"inputs": ("title",)}, "neither 'image', 'column:NAME' nor"),
        ({"inputs": ("feature:story",)}, "does not name the recipe"),
        ({"dim": None}, "a vector has a size"),
        ({"value": ValueKind.TEXT}, "a text has none"),
        ({"device": "cuda"}, "Extra inputs are not permitted"),
        ({"options": {"f": object()}}, "valid JSON"),
    ],
)
def test_a_recipe_that_means_nothing_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Recipe(**FIELDS | change)


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Recipe(**FIELDS).dim = 3  # type: ignore[misc]


def test_a_recipe_names_its_columns_what_it_reads_and_its_table() -> None:
    recipe = Recipe(**FIELDS)
    assert recipe.columns == ["title"]
    assert recipe.upstream == [("story", "a" * 64)]
    assert recipe.table("text") == f"text__{GOLDEN[:8]}"
