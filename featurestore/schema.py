"""Names and Arrow types of everything that is stored: the one place a column name is spelled.

Columns that we keep about a row start with an underscore; a catalogue's own columns never do.
"""

from __future__ import annotations

from enum import StrEnum

import pyarrow as pa

FORMAT = 1  # of the store's folder; a store with a newer one is refused

# tables
ITEMS = "items"
IMAGES = "images"
INTERACTIONS = "interactions"
QUARANTINE = "quarantine"
PREFERENCES = "preferences"  # see featurestore.preferences; no release pins it

# columns of the catalogue and the log
ITEM_ID = "item_id"
TITLE = "title"
IMAGE = "image"  # path as the source gave it, relative to the declared root; null where there is none
USER_ID = "user_id"
EVENT_ID = "event_id"
EVENT = "event"  # kind of event: "view", "buy"; "interaction" where the source names none
TIMESTAMP = "timestamp"  # unix seconds
POSITION = "position"  # the event's place in that user's own order; not a clock
VALUE = "value"  # a rating or weight, if the source has one; also a feature's value
SEQ = "_seq"  # int64, input order over all ingests: what breaks ties of equal times

# columns we keep beside an item
CONTENT_HASH = "_content_hash"
IMAGE_SHA256 = "_image_sha256"
DELETED = "_deleted"
ADDED_AT = "_added_at"
UPDATED_AT = "_updated_at"

# columns of a feature table
INPUT_HASH = "input_hash"
VALUE_HASH = "value_hash"
STATUS = "status"
ERROR_CODE = "error_code"
ERROR_MESSAGE = "error_message"
TRANSIENT = "transient"  # of an error: trying again may help
ATTEMPTS = "attempts"

IMPORTED = "imported"  # kind of the features whose values are brought, not computed
DESCRIBE = "describe"  # kind of the features that a model writes; their tables have these columns too:
RAW = "raw"  # the answer as it came
FINISH_REASON = "finish_reason"
PROMPT_TOKENS = "prompt_tokens"
COMPLETION_TOKENS = "completion_tokens"
SECONDS = "seconds"

FUSE = "fuse"  # kind of the features that fitted weights make of other features' vectors

TIME = pa.timestamp("us", tz="UTC")
KEY_METADATA = {"lance-schema:unenforced-primary-key": "true"}


class Status(StrEnum):
    """How the computation of one cell ended."""

    OK = "ok"
    NO_INPUT = "no_input"  # the item has nothing to compute from (no picture, no text): final until its input changes
    ERROR = "error"


class State(StrEnum):
    """Where one cell stands against what it should be computed from."""

    CURRENT = "current"  # ok or no_input, and computed from today's input
    MISSING = "missing"  # never computed
    STALE = "stale"  # its input changed since
    FAILED = "failed"  # an error on today's input
    BLOCKED = "blocked"  # a feature it is computed from is still to be computed


class ValueKind(StrEnum):
    TEXT = "text"
    VECTOR = "vector"
    VECTORS = "vectors"  # several vectors a row, for instance one a sentence


def key_field(name: str) -> pa.Field:
    return pa.field(name, pa.string(), nullable=False, metadata=KEY_METADATA)


def items_schema(attributes: list[pa.Field]) -> pa.Schema:
    """`attributes`: the catalogue's own typed columns, in the order in which they were first seen."""
    return pa.schema(
        [
            key_field(ITEM_ID),
            pa.field(TITLE, pa.string()),
            *attributes,
            pa.field(IMAGE, pa.string()),
            pa.field(IMAGE_SHA256, pa.string()),
            pa.field(CONTENT_HASH, pa.string()),
            pa.field(DELETED, pa.bool_()),
            pa.field(ADDED_AT, TIME),
            pa.field(UPDATED_AT, TIME),
        ]
    )


def attribute_fields(schema: pa.Schema) -> list[pa.Field]:
    """The catalogue's own columns of an items schema: neither key, title, image nor ours."""
    return [f for f in schema if f.name not in (ITEM_ID, TITLE, IMAGE) and not f.name.startswith("_")]


def text_columns(schema: pa.Schema) -> list[str]:
    """What "text" means of an item: its title and every attribute of texts or of lists of texts."""

    def text(kind: pa.DataType) -> bool:
        return bool(pa.types.is_string(kind.value_type if pa.types.is_list(kind) else kind))

    return [TITLE, *(f.name for f in attribute_fields(schema) if text(f.type))]


IMAGES_SCHEMA = pa.schema(
    [
        key_field("sha256"),
        pa.field("root", pa.string()),  # absolute folder that `path` is relative to
        pa.field("path", pa.string()),
        pa.field("format", pa.string()),
        pa.field("mode", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("frames", pa.int32()),
        pa.field("bytes", pa.int64()),
        pa.field("mtime_ns", pa.int64()),
        pa.field("thumbnail", pa.binary()),  # JPEG, longer side <= 256 px
        pa.field("original", pa.binary()),  # the file itself, where its keeping was asked for
        pa.field(UPDATED_AT, TIME),
    ]
)

INTERACTIONS_SCHEMA = pa.schema(
    [
        key_field(EVENT_ID),
        pa.field(USER_ID, pa.string()),
        pa.field(ITEM_ID, pa.string()),
        pa.field(EVENT, pa.string()),
        pa.field(TIMESTAMP, pa.int64()),
        pa.field(POSITION, pa.int64()),
        pa.field(VALUE, pa.float64()),
        pa.field(SEQ, pa.int64()),
    ]
)

QUARANTINE_SCHEMA = pa.schema(
    [
        key_field("quarantine_id"),  # hash of source, line and field
        pa.field("source", pa.string()),
        pa.field("line", pa.int64()),  # 1-based line (csv, jsonl) or row (parquet, Arrow) of the source
        pa.field("field", pa.string()),
        pa.field("code", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("row", pa.string()),  # the row as JSON, so that nothing is lost
        pa.field(ADDED_AT, TIME),
    ]
)


def value_type(kind: ValueKind, dim: int | None) -> pa.DataType:
    """Arrow type of a feature's value; `dim` is the vectors' size (None for text)."""
    if kind is ValueKind.TEXT:
        return pa.string()
    assert dim is not None, "a vector feature has a size"
    vector = pa.list_(pa.float32(), dim)
    return vector if kind is ValueKind.VECTOR else pa.list_(vector)


ANSWER_FIELDS = [
    pa.field(RAW, pa.string()),
    pa.field(FINISH_REASON, pa.string()),
    pa.field(PROMPT_TOKENS, pa.int32()),
    pa.field(COMPLETION_TOKENS, pa.int32()),
    pa.field(SECONDS, pa.float64()),
]


def feature_schema(value: ValueKind, dim: int | None, kind: str = "") -> pa.Schema:
    """Columns of a feature's table. value, dim: what is stored; kind: of the recipe, `describe` has more columns."""
    return pa.schema(
        [
            key_field(ITEM_ID),
            pa.field(VALUE, value_type(value, dim)),
            pa.field(INPUT_HASH, pa.string()),
            pa.field(VALUE_HASH, pa.string()),
            pa.field(STATUS, pa.string()),
            pa.field(ERROR_CODE, pa.string()),
            pa.field(ERROR_MESSAGE, pa.string()),
            pa.field(TRANSIENT, pa.bool_()),
            pa.field(ATTEMPTS, pa.int32()),
            pa.field(UPDATED_AT, TIME),
            *(ANSWER_FIELDS if kind == DESCRIBE else []),
        ]
    )
