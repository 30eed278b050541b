"""features.toml, the declaration that a person edits, and features.lock.json, what it was resolved to.

    [features.text]
    kind = "embed_text"
    inputs = ["text"]           # the item's document; else names of columns, "image", or other features
    encoder = "tfidf_svd"
    dim = 128                   # every further key is an option of the encoder

Definitions form a graph. The lock pins for each feature the recipe that is active, so that nothing has to be resolved,
and no model or network is needed, to say what is current.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from featurestore import files
from featurestore.errors import BadInput, NotFound, did_you_mean
from featurestore.recipe import FEATURE, SHORT, Recipe
from featurestore.schema import FUSE, IMAGE

FILE = "features.toml"
LOCK_FILE = "features.lock.json"
FORMAT = 1
IndexKind = Literal["auto", "exact", "ivf"]  # of a published feature: see featurestore.indexes
DOCUMENT = "text"  # the input that means the item's whole text
NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*")
_OWN_KEYS = ("kind", "inputs", "encoder", "model", "publish", "description", "index")
_NEAR = (
    0.8  # likeness from which a key is one of ours misspelled, not an option; the encoders' own stay below it
)


class FeatureDef(BaseModel):
    """One feature as declared. `options` are the keys that belong to the encoder, which checks them."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    kind: str
    inputs: list[str]
    encoder: str
    model: str | None = None
    publish: bool = True
    description: str = ""
    index: IndexKind = "auto"
    options: dict[str, JsonValue] = {}


@dataclass(frozen=True)
class Definitions:
    """All features of a store, by name, as the file lists them."""

    features: dict[str, FeatureDef]

    def __iter__(self) -> Iterator[FeatureDef]:
        return iter(self.features.values())

    def get(self, name: str) -> FeatureDef:
        """Raises NotFound with the nearest known name."""
        if name not in self.features:
            raise NotFound(f"there is no feature '{name}'", remedy=did_you_mean(name, self.features))
        return self.features[name]

    def upstream(self, name: str) -> list[str]:
        """Names of the features that `name` reads.

        An input "feature:NAME" is always a feature, and so is every input of kind "fuse". A bare name is one too,
        unless it is the feature's own (then it is a column), or "text" or "image".
        """
        found = []
        definition = self.get(name)
        for given in definition.inputs:
            bare = given.removeprefix(FEATURE)
            if given.startswith(FEATURE) or definition.kind == FUSE:
                self.get(bare)
                found.append(bare)
            elif bare in self.features and bare not in (name, DOCUMENT, IMAGE):
                found.append(bare)
        return found

    def ordered(self, wanted: list[str] | None = None) -> list[FeatureDef]:
        """All features, or the wanted ones with all they read, each after what it reads."""
        done: list[str] = []

        def visit(name: str) -> None:
            if name not in done:
                for above in self.upstream(name):
                    visit(above)
                done.append(name)

        for name in self.features if wanted is None else wanted:
            visit(self.get(name).name)
        return [self.features[name] for name in done]

    def hash(self, name: str) -> str:
        """Hash of what a definition and all it reads say about values; publish, description and index do not count."""
        own = self.get(name).model_dump(mode="json", exclude={"publish", "description", "index"})
        return files.sha256_text(
            files.canonical_json([own, [self.hash(above) for above in self.upstream(name)]])
        )

    @cached_property
    def published(self) -> list[str]:
        return [f.name for f in self if f.publish]


def parse(text: str, source: str = FILE) -> Definitions:
    """Read a features.toml. Raises BadInput that names the file, the line where it can, and the key."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(
            f"{source}: {error}", remedy="correct the line; see https://toml.io for the notation"
        ) from None
    for key in raw:
        if key not in ("format", "features"):
            raise BadInput(
                f"{source}{_line(text, key)}: unknown key '{key}'",
                remedy=did_you_mean(key, ["format", "features"]),
            )
    if raw.get("format", FORMAT) != FORMAT:
        raise BadInput(
            f"{source}: format {raw['format']} is not known here",
            remedy=f"this version reads format {FORMAT}",
        )
    tables = raw.get("features", {})
    if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
        raise BadInput(
            f"{source}{_line(text, 'features')}: 'features' holds one table a feature",
            remedy="write [features.NAME]",
        )
    features = {name: _feature(name, table, text, source) for name, table in _flat(tables)}
    definitions = Definitions(features)
    _check_graph(definitions, source)
    return definitions


def read(path: Path) -> Definitions:
    return parse(text(path), str(path))


def text(path: Path) -> str:
    """The file as it stands. Raises NotFound, and BadInput where it is no text."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"{path} is gone", remedy="put it back: it declares what the store computes") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 (byte {error.start})", remedy="save it as UTF-8") from None


def _flat(tables: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Features by their whole names: TOML reads [features.image.clip] as table "clip" in a table "image"."""
    for name, table in tables.items():
        if table and "kind" not in table and all(isinstance(inner, dict) for inner in table.values()):
            yield from _flat(table, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", table


def _feature(name: str, table: dict[str, Any], text: str, source: str) -> FeatureDef:
    where = f"{source}{_line(text, f'features.{name}')}, [features.{name}]"
    if not NAME.fullmatch(name) or "__" in name:
        raise BadInput(
            f"{where}: '{name}' is no name for a feature", remedy="small letters, digits, single _ and ."
        )
    for key in ("kind", "inputs", "encoder"):
        if key not in table:
            near = [k for k in table if did_you_mean(k, [key]).startswith("did")]
            said = f"rename '{near[0]}' to '{key}'" if near else f"write {key} = ..."
            raise BadInput(f"{where}: '{key}' is missing", remedy=said)
    own = {key: value for key, value in table.items() if key in _OWN_KEYS}
    options = {key: value for key, value in table.items() if key not in _OWN_KEYS}
    for key in options:
        if near := difflib.get_close_matches(key, _OWN_KEYS, n=1, cutoff=_NEAR):
            raise BadInput(f"{where}: unknown key '{key}'", remedy=f"did you mean '{near[0]}'?")
    try:
        feature = FeatureDef(name=name, options=options, **own)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise BadInput(
            f"{where}: {key}: {first['msg']} (got {first.get('input')!r})", remedy=f"correct '{key}'"
        ) from None
    try:
        files.canonical_json(options)
    except ValueError:
        raise BadInput(
            f"{where}: an option is nan or inf, which is no value", remedy="write a number"
        ) from None
    if not feature.inputs or len(set(feature.inputs)) != len(feature.inputs):
        raise BadInput(
            f"{where}: 'inputs' lists each thing it reads once", remedy='for instance inputs = ["text"]'
        )
    return feature


def _check_graph(definitions: Definitions, source: str) -> None:
    """No circle, no unknown "feature:NAME". Other inputs are columns, checked when the recipe is resolved."""
    state: dict[str, int] = {}

    def visit(name: str, path: list[str]) -> None:
        if state.get(name) == 1:
            circle = " -> ".join([*path[path.index(name) :], name])
            raise BadInput(
                f"{source}: features read each other in a circle: {circle}", remedy="break it at one input"
            )
        if name not in state:
            state[name] = 1
            try:
                read = definitions.upstream(name)
            except NotFound as error:
                raise BadInput(f"{source}, [features.{name}]: {error.message}", remedy=error.remedy) from None
            for above in read:
                visit(above, [*path, name])
            state[name] = 2

    for name in definitions.features:
        visit(name, [])


def _line(text: str, needle: str) -> str:
    """`:LINE` of the first line that opens a table or key called `needle`, or nothing."""
    pattern = re.compile(rf"^\s*\[*\s*{re.escape(needle)}\s*[\]=]")
    for number, line in enumerate(text.split("\n"), start=1):
        if pattern.match(re.sub(r"[\"']", "", line)):
            return f":{number}"
    return ""


@dataclass(frozen=True)
class Locked:
    """What a definition was resolved to.

    fitted: facts about the fit (when, on how many items), if there was one. files: those beside features.toml that it
    was made from (a prompt), path -> sha256; a relative path starts at the store's folder.
    """

    definition_hash: str
    recipe: Recipe
    fitted: dict[str, Any] | None = None
    files: dict[str, str] = field(default_factory=dict)


def _locked(entry: dict[str, Any]) -> Locked:
    recipe = Recipe.model_validate(entry["recipe"])
    if recipe.id != entry["recipe_id"]:
        raise ValueError(f"a recipe was edited: it has {recipe.short}, not {entry['recipe_id'][:SHORT]}")
    return Locked(entry["definition_hash"], recipe, entry["fitted"], entry.get("files", {}))


def entries(locked: Mapping[str, Locked]) -> dict[str, dict[str, Any]]:
    """What features.lock.json and the manifests of releases say of each feature."""
    return {
        name: {
            "definition_hash": each.definition_hash,
            "recipe_id": each.recipe.id,
            "recipe": each.recipe.canonical(),
            "fitted": each.fitted,
            **({"files": each.files} if each.files else {}),
        }
        for name, each in locked.items()
    }


class Lock:
    """features.lock.json. Written whole and atomically, under the writer's lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Locked]:
        if not self.path.exists():
            return {}
        try:
            raw = files.read_json(self.path)
            if raw["format"] != FORMAT:
                raise BadInput(
                    f"{self.path} has format {raw['format']}, this version reads format {FORMAT}",
                    remedy="use the version of dualview that wrote it, or a newer one",
                )
            return {name: _locked(entry) for name, entry in raw["features"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(
                f"{self.path} cannot be read: {type(error).__name__}: {error}",
                remedy="restore it from a copy; without it, materialize resolves and fits every feature anew",
            ) from error

    def put(self, name: str, locked: Locked) -> None:
        self.write(entries(self.read() | {name: locked}))

    def write(self, features: Mapping[str, dict[str, Any]]) -> None:
        """Replace all of it by what `entries` made."""
        files.write_json(self.path, {"format": FORMAT, "features": features})
