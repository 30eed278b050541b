"""Requests and answers as typed models, which make the OpenAPI document. Requests refuse fields they do not know."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from featurestore.query import BETA, GREATEST_K, GREATEST_WEIGHT
from recommender.serve import settings

Id = Annotated[str, StringConstraints(min_length=1, max_length=settings.ID_LENGTH)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=settings.TEXT_LENGTH)]
Where = Annotated[str, StringConstraints(min_length=1, max_length=settings.FILTER_LENGTH)]
Weight = Annotated[float, Field(ge=0, le=GREATEST_WEIGHT, allow_inf_nan=False)]
K = Annotated[int, Field(ge=1, le=GREATEST_K)]
ITEM_DOC = "Id of an item; a slash in it is written %2F."
WHERE_DOC = "Only items that satisfy this, such as: price < 20 AND category = 'mug'"


class Asked(BaseModel):
    """A part of a request."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Told(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(extra="forbid")


# ---- requests


class SimilarOptions(Asked):
    """How to look for what is similar, whatever to."""

    features: dict[Name, Weight] | None = Field(
        None,
        max_length=settings.FEATURES,
        description="Weight of each feature; without it one that fits is chosen.",
    )
    where: Where | None = Field(None, description=WHERE_DOC)
    k: K = 10
    diversity: float = Field(
        0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="0: the most relevant; higher: less like each other.",
    )
    beta: float = Field(
        BETA,
        ge=0,
        le=100,
        allow_inf_nan=False,
        description="How far to go away from items that it is unlike.",
    )
    explain: bool = Field(False, description="Say how each score came about.")
    exact: bool = Field(False, description="Look at every vector where an index would look at a shortlist.")


class SimilarTo(SimilarOptions):
    """Like items, unlike others, like a text, or with words in it (BM25); any of these together."""

    items: list[Id] = Field(default_factory=list, max_length=settings.ITEMS)
    unlike: list[Id] = Field(default_factory=list, max_length=settings.ITEMS)
    text: Text | None = Field(None, description="Compared by its vector.")
    words: Text | None = Field(
        None,
        description="Looked for in titles and texts. With `text` the same, or mode hybrid: both rankings, fused.",
    )
    mode: Literal["vector", "keyword", "hybrid"] | None = Field(
        None, description="How `text` is read; without it by its vector."
    )


class SimilarToPicture(SimilarOptions):
    """The JSON part beside a picture."""

    items: list[Id] = Field(default_factory=list, max_length=settings.ITEMS)
    unlike: list[Id] = Field(default_factory=list, max_length=settings.ITEMS)
    text: Text | None = Field(None, description="Compared by its vector, together with the picture.")


class RecommendTo(Asked):
    """The next items for a user of the log, or for a history given here, oldest first."""

    user: Id | None = None
    history: list[Id] | None = Field(None, min_length=1, max_length=settings.HISTORY)
    k: K = 10
    where: Where | None = Field(None, description=WHERE_DOC)
    exclude_seen: bool = Field(True, description="Never an item of the history.")
    run: Name | None = Field(None, description="A run by its name; without it the one that is served.")
    rerank: Name | None = Field(
        None,
        description="A fine-tuned run that puts the best candidates into its own order; msr: the newest.",
    )
    depth: int | None = Field(
        None, ge=1, le=settings.DEPTH, description="How many candidates are re-ranked; without it 50."
    )
    explain: bool = Field(False, description="With each item, which of the history are nearest to it.")


# ---- answers


class Error(Told):
    code: str
    message: str
    remedy: str | None


class Refusal(Told):
    """What every refusal looks like."""

    error: Error


class IndexFacts(Told):
    """How neighbours are found: recall is 1 where every vector is looked at, else as measured at `publish`."""

    feature: str = Field(description="A feature, or the run whose vectors are searched.")
    kind: str
    exact: bool
    recall: float | None


class Card(Told):
    id: str
    title: str | None
    picture: str | None = Field(description="Path of its picture, null where it has none.")
    attributes: dict[str, Any]


class Hit(Card):
    score: float
    explain: dict[str, Any] | None = None


class Similar(Told):
    release: str
    run: None = None
    index: list[IndexFacts]
    notes: list[str]
    explain: dict[str, Any] | None = None
    items: list[Hit]


class Near(Told):
    """An item of the history and its cosine to the recommended one, among the run's vectors."""

    id: str
    title: str | None
    cosine: float


class Why(Told):
    nearest: list[Near]


class Recommendation(Card):
    """score: the run's. p_yes: what a re-ranking run makes of it, by which the answer is then ordered."""

    score: float
    p_yes: float | None = None
    explain: Why | None = None


class Recommended(Told):
    release: str
    run: str
    index: list[IndexFacts]
    facts: dict[str, Any] = Field(
        description="Events read, items ranked, left out, passing the filter, seen."
    )
    items: list[Recommendation]


class Items(Told):
    release: str
    run: None = None
    index: list[IndexFacts]
    total: int
    offset: int
    notes: list[str]
    items: list[Hit] | list[Card]


class Vector(Told):
    """What the release holds of one feature of an item. count: how many vectors, where a feature has several."""

    holds: Literal["vector", "vectors", "text"]
    state: Literal["ok", "no_input", "error", "absent"]
    dim: int | None
    count: int | None


class Page(Card):
    """All that the release has of an item."""

    texts: dict[str, str] = Field(description="What models wrote or read, by feature.")
    image: str | None = Field(description="How the catalogue names its picture.")
    features: dict[str, Vector]


class Item(Told):
    release: str
    run: None = None
    index: list[IndexFacts]
    item: Page


class Node(Told):
    kind: str
    name: str
    facts: dict[str, Any]
    below: list[Node]


class Lineage(Told):
    release: str
    lineage: Node


class User(Told):
    id: str
    events: int


class Users(Told):
    release: str
    total: int
    users: list[User]


class Event(Told):
    """time: unix seconds, null where the log has an order but no clock. item: null where it left the catalogue."""

    id: str
    time: int | None
    item: Card | None


class History(Told):
    release: str
    user: str
    total: int
    offset: int
    events: list[Event]


class ReleaseFacts(Told):
    name: str
    tag: str | None
    created: str
    items: int
    events: int
    current: bool = Field(description="It is the one that answers.")


class Releases(Told):
    current: str
    run: str | None = Field(description="The run that recommends.")
    promoted: str | None
    releases: list[ReleaseFacts]


class RunFacts(Told):
    name: str
    kind: str = Field(description="sequential: recommends. msr: re-ranks.")
    release: str | None
    created: str
    items: str
    epochs: int
    finished: bool
    usable: bool = Field(description="It has weights.")
    promoted: bool
    served: bool = Field(description="It is the one that recommends.")
    validation: dict[str, Any]
    test: dict[str, Any]


class Runs(Told):
    release: str
    runs: list[RunFacts]


class FeatureFacts(Told):
    name: str
    kind: str | None
    holds: str
    dim: int | None
    encoder: str | None
    model: str | None
    recipe: str | None
    coverage: dict[str, int]
    searchable: bool
    asked_by: list[Literal["item", "text", "picture"]]
    index: IndexFacts | None
    status: dict[str, Any] | None = Field(
        description="Where the store's table stands now; asked for by ?status=true."
    )


class Features(Told):
    release: str
    default: str | None = Field(description="What items are compared by unless a feature is asked for.")
    words: list[str] = Field(description="Columns that keywords are looked for in.")
    columns: list[str] = Field(description="Attributes that cards show and filters can name.")
    features: list[FeatureFacts]


class Health(Told):
    status: Literal["ok"]


class Ready(Told):
    """parts: "similar" answers whenever this does; "recommend" and "text" are loaded after it."""

    status: Literal["ready"]
    release: str
    run: str | None
    since: str
    parts: dict[str, Literal["ready", "loading", "failed", "absent"]]
    notes: list[str]
    failed: dict[str, str] | None = Field(description="A newer release that could not be opened.")


class Reloaded(Told):
    release: str
    run: str | None
    swapped: bool


class Session(Told):
    session: Literal["open"]
