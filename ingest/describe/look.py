"""One item's question as it is sent, and its answer, tried; nothing is stored.

>>> store.prompt("description", "B00123").turns          # doctest: +SKIP
>>> store.prompt("description", "B00123").send()         # doctest: +SKIP
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from featurestore import schema
from featurestore.errors import BadInput, CellError, DualviewError, NotFound
from featurestore.images import Originals
from featurestore.recipe import Recipe
from ingest import materialize, resolve
from ingest.describe import base, prompts, recipes
from ingest.describe.base import Answer, Request
from ingest.describe.cost import Budget
from ingest.describe.reading import Reader
from ingest.encode.base import Tools
from ingest.encode.models import Models
from ingest.pictures import decode
from ingest.pipeline import cell_error

if TYPE_CHECKING:
    from featurestore.definitions import FeatureDef
    from featurestore.store import Store


@dataclass(frozen=True)
class Part:
    """A text, or a picture: its size in pixels and the sha256 of its file."""

    text: str | None = None
    width: int | None = None
    height: int | None = None
    sha256: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Tried:
    """What came of sending a question. text: what would be kept; error: why nothing would, as a code and a message."""

    answer: Answer | None
    text: str | None
    error: CellError | None
    cost: float | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "answer": asdict(self.answer) if self.answer else None,
            "text": self.text,
            "error": asdict(self.error) if self.error else None,
            "cost": self.cost,
        }


@dataclass(frozen=True)
class Asking:
    """What is sent about one item for one feature.

    turns: (role, parts). missing: slots that must be filled and are not, so that nothing is sent; picture_error: why
    the picture cannot be read. tokens: of the texts, by the model's own tokenizer where that is on this machine.
    """

    feature: str
    item_id: str
    encoder: str
    model: str | None
    prompt: str
    prompt_sha256: str
    options: dict[str, Any]
    turns: tuple[tuple[str, tuple[Part, ...]], ...]
    missing: tuple[str, ...]
    picture_error: CellError | None
    tokens: int | None
    _store: Store
    _definition: FeatureDef
    _recipe: Recipe
    _request: Request | None
    _prompt: prompts.Prompt

    def to_dict(self) -> dict[str, Any]:
        shown = ("feature", "item_id", "encoder", "model", "prompt", "prompt_sha256", "options", "tokens")
        return {name: getattr(self, name) for name in shown} | {
            "turns": [{"role": role, "parts": [p.to_dict() for p in parts]} for role, parts in self.turns],
            "missing": list(self.missing),
            "picture_error": asdict(self.picture_error) if self.picture_error else None,
        }

    def send(self, device: str = "auto") -> Tried:
        """Ask, and judge the answer as `materialize` would. It costs what it costs. Raises ModelUnavailable."""
        if self._request is None:
            error = self.picture_error or CellError(
                "missing", f"the item has no {', no '.join(self.missing)}"
            )
            return Tried(None, None, error, None)
        models = Models(self._store.root, read_only=True)
        options = recipes.options_of(self._definition)
        tools = Tools(models, self._store.artifacts, device, None, self._definition.model)
        describer = base.maker(self.encoder).load(self._recipe, options, tools)
        try:
            (_, answer), *_ = list(describer.describe([self._request]))
        finally:
            describer.close()
        if isinstance(answer, CellError):
            return Tried(None, None, answer, None)
        budget = Budget(agreed=True)
        budget.begin(self.feature, options, 1)
        budget.count(self._request, answer)
        _, text, wrong = recipes.checks_of(self._recipe, self._prompt).settle(answer)
        return Tried(answer, text, wrong, budget.of_feature)


def prompt(store: Store, feature: str, item_id: str) -> Asking:
    """What is sent about an item, by today's features.toml. Reads only.

    Raises NotFound for an unknown feature or item, BadInput for a feature that is not described or that reads one
    which was never computed, ModelUnavailable where a model that the recipe has to name cannot be reached.
    """
    definition = store.definitions.get(feature)
    if definition.kind != schema.DESCRIBE:
        described = [f.name for f in store.definitions if f.kind == schema.DESCRIBE]
        raise BadInput(
            f"feature '{feature}' is of kind {definition.kind}: nobody is asked for it",
            remedy=f"one of: {', '.join(described) or 'none is described yet'}",
        )
    if not store.tables.exists(schema.ITEMS):
        raise NotFound(f"{store.root} holds no items yet", remedy=f"dualview ingest {store.root} ITEMS")
    quoted = item_id.replace("'", "''")
    if not store.tables.dataset(schema.ITEMS).count_rows(
        f"{schema.ITEM_ID} = '{quoted}' AND {schema.DELETED} IS NOT TRUE"
    ):
        raise NotFound(
            f"there is no item '{item_id}'", remedy="item ids are case-sensitive; dualview sql lists them"
        )
    models = Models(store.root, read_only=True)
    recipe = _recipe(store, definition, models)
    said_by = recipes.prompt_of(store.root, recipes.options_of(definition))
    inputs = materialize.read_inputs(store, recipe, pa.chunked_array([[item_id]], pa.string()))
    return _asking(store, definition, recipe, said_by, inputs, models)


def _recipe(store: Store, definition: FeatureDef, models: Models) -> Recipe:
    """The active recipe, or what it would be today."""
    if (recipe := resolve.active(store, definition, models)) is not None:
        return recipe
    known = store.recipes()
    for above in store.definitions.upstream(definition.name):
        if above not in known or not store.tables.exists(known[above].table(above)):
            raise BadInput(
                f"feature '{definition.name}' reads '{above}', which was never computed",
                remedy=f"dualview materialize {store.root} -f {above}",
            )
    return resolve.draft(store, definition, known, models)


def _asking(
    store: Store,
    definition: FeatureDef,
    recipe: Recipe,
    said_by: prompts.Prompt,
    inputs: pa.Table,
    models: Models,
) -> Asking:
    reader = Reader(recipe, said_by)
    (row,), (said,) = inputs.to_pylist(), reader.texts(inputs)
    sha = row.get(schema.IMAGE_SHA256)
    picture, bad = None, None
    if sha:
        try:
            picture = decode(Originals(store.tables).open_bytes(sha))
        except DualviewError as error:
            bad = cell_error(error)
    missing = reader.missing(said, bool(sha))
    request = None if missing or bad else reader.request(row[schema.ITEM_ID], said, picture)
    turns = request.turns if request else ()
    parts = [
        (turn.role, tuple(Part(p) if isinstance(p, str) else Part(None, *p.size, sha) for p in turn.parts))
        for turn in turns
    ]
    texts = [part.text for _, all_ in parts for part in all_ if part.text is not None]
    return Asking(
        feature=definition.name,
        item_id=row[schema.ITEM_ID],
        encoder=definition.encoder,
        model=definition.model,
        prompt=said_by.source,
        prompt_sha256=said_by.sha256,
        options=dict(recipe.options),
        turns=tuple(parts),
        missing=tuple(missing),
        picture_error=bad,
        tokens=_tokens(definition, recipe, models, texts),
        _store=store,
        _definition=definition,
        _recipe=recipe,
        _request=request,
        _prompt=said_by,
    )


def _tokens(definition: FeatureDef, recipe: Recipe, models: Models, texts: list[str]) -> int | None:
    """Tokens of the texts alone, without the marks of the chat and the picture's; None where no tokenizer is here."""
    if recipe.model is None or recipe.model.folder_sha256 is None or definition.model is None:
        return None
    folder = models.local(definition.model)
    file = folder / "tokenizer.json" if folder is not None else None
    if file is None or not file.is_file():
        return None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    return sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts)
