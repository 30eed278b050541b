"""What an encoder is, and the register of the ones there are.

Two steps: a *maker* (one an encoder name and kind, in the register) checks a definition's options, resolves them to
everything that changes the output, and fits where there is something to fit; what it loads is an *encoder*, which
turns texts or pictures into vectors and knows nothing of stores.

A row that has no vector is not an exception: the encoder returns zeros (or NaN) for it, and `faults` names the reason.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from featurestore.errors import BadInput, CellError, did_you_mean
from featurestore.schema import FUSE, ValueKind

if TYPE_CHECKING:
    from PIL import Image

    from featurestore.artifacts import Artifacts
    from featurestore.recipe import ModelRef, Recipe
    from ingest.encode.models import Models

Vectors = npt.NDArray[np.float32]
Role = Literal["document", "query"]
Kind = Literal["embed_text", "embed_image", "embed_tokens", "fuse"]

ZERO = CellError("zero_vector", "the encoder gave a vector of zeros, which has no direction to compare by")
NAN = CellError("nan_output", "the encoder gave a vector with NaN or infinite values")


@runtime_checkable
class TextEncoder(Protocol):
    dim: int
    batch_size: int

    def encode(self, texts: Sequence[str], role: Role = "document") -> Vectors:
        """(n, dim) float32, row i belongs to texts[i]; a row of zeros where a text has no vector."""


@runtime_checkable
class ImageEncoder(Protocol):
    dim: int
    batch_size: int

    def prepare(self, image: Image.Image) -> Any:
        """One RGB picture made ready for `encode`; called from several threads."""

    def encode(self, prepared: Sequence[Any]) -> Vectors:
        """(n, dim) float32, row i belongs to prepared[i]."""


class Options(BaseModel):
    """Options of an encoder: typed, unknown ones refused. Every one of them is part of the recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TextOptions(Options):
    labels: bool = Field(
        default=True, description="Write each column's name before its value in an item's document."
    )


O = TypeVar("O", bound=Options)  # noqa: E741
T = TypeVar("T")


@dataclass(frozen=True)
class Resolved:
    """What a definition comes to once the model behind it is known. `dim` is None while a fit decides it."""

    options: dict[str, Any]
    dim: int | None
    model: ModelRef | None = None


@dataclass(frozen=True)
class Fitted:
    """Outcome of a fit: a folder's worth of files to be kept as an artifact, its vectors' size, and what to tell."""

    files: dict[str, bytes]
    dim: int
    notes: tuple[str, ...] = ()


class Maker(ABC, Generic[O]):
    """Makes encoders of one name and kind. `code_version` is raised when the same recipe would give other vectors."""

    name: ClassVar[str]
    kind: ClassVar[Kind]
    value: ClassVar[ValueKind] = ValueKind.VECTOR  # what an item gets
    options: ClassVar[type[Options]]
    code_version: ClassVar[int] = 1
    fitted: ClassVar[bool] = False
    artifact: ClassVar[str] = ""  # name of what a fit makes, in the recipe
    needs_model: ClassVar[bool] = True

    @abstractmethod
    def resolve(self, options: O, model: str | None, models: Models, device: str = "auto") -> Resolved:
        """Everything that changes the output. Raises ModelUnavailable where weights cannot be reached.

        device: where a model is loaded to, if its vectors' size has to be asked of it.
        """

    @abstractmethod
    def load(self, recipe: Recipe, tools: Tools) -> Any:
        """The encoder of a recipe: a TextEncoder or an ImageEncoder, as `kind` says."""

    def repository(self, options: O, model: str, models: Models) -> str:
        """The hub repository or folder that `model` names. Raises BadInput or ModelUnavailable for no known name."""
        return model

    def fit(self, texts: Sequence[str], options: dict[str, Any]) -> Fitted:
        raise TypeError(f"encoder '{self.name}' has nothing to fit: its `fitted` is False")


@dataclass(frozen=True)
class Tools:
    """What loading an encoder takes besides its recipe; none of it changes the output."""

    models: Models
    artifacts: Artifacts
    device: str = "auto"
    batch_size: int | None = None
    hint: str | None = None  # the definition's `model`: where a local folder is looked for

    def artifact(self, recipe: Recipe, name: str) -> Path:
        return self.artifacts.path(recipe.artifacts[name])


Wrap = Callable[[Maker[Any]], Maker[Any]]

_makers: dict[tuple[str, str], Maker[Any]] = {}
_derived: dict[str, tuple[Kind, Wrap]] = {}


def register(
    name: str, *, kind: Kind, options: type[Options]
) -> Callable[[type[Maker[Any]]], type[Maker[Any]]]:
    """Put a maker into the register under its name and kind."""

    def add(maker: type[Maker[Any]]) -> type[Maker[Any]]:
        maker.name, maker.kind, maker.options = name, kind, options
        _makers[(kind, name)] = maker()
        return maker

    return add


def derive(kind: Kind, *, of: Kind) -> Callable[[Wrap], Wrap]:
    """Register a kind that has no encoders of its own: its makers are those of another kind, wrapped."""

    def add(wrap: Wrap) -> Wrap:
        _derived[kind] = (of, wrap)
        return wrap

    return add


def known() -> list[tuple[str, str]]:
    """(kind, name) of every encoder there is, as it was registered: one that a query can be put through."""
    return sorted(key for key in _makers if key[0] != FUSE)


def kinds() -> list[str]:
    return sorted({kind for kind, _ in _makers} | set(_derived))


def maker(kind: str, name: str) -> Maker[Any]:
    """The maker of a definition. Raises BadInput for an unknown encoder, with the nearest known one."""
    own, wrap = _derived.get(kind, (kind, None))
    found = _makers.get((own, name))
    if found is None:
        there = [n for k, n in _makers if k == own]
        others = [k for k, n in _makers if n == name]
        if others:
            raise BadInput(
                f"encoder '{name}' does not do {kind}",
                remedy=f"kind = {' or '.join(others)}, or one of the encoders: {', '.join(sorted(there))}",
            )
        raise BadInput(f"unknown encoder '{name}' for {kind}", remedy=did_you_mean(name, there))
    return wrap(found) if wrap else found


def check_options(feature: str, maker: Maker[O], given: dict[str, Any]) -> O:
    """The options of one feature, typed. Raises BadInput naming the feature, the option and what is accepted."""
    return typed_options(feature, maker.name, maker.options, given)  # type: ignore[return-value]


M = TypeVar("M", bound=BaseModel)


def typed_options(feature: str, encoder: str, options: type[M], given: dict[str, Any]) -> M:
    """The same for the options of any encoder."""
    return typed(f"features.toml, [features.{feature}]", encoder, options, given)


def typed(where: str, encoder: str, options: type[M], given: dict[str, Any]) -> M:
    """Options as an encoder takes them. where: what a refusal names."""
    try:
        return options.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise BadInput(
                f"{where}: encoder '{encoder}' has no option '{option}'",
                remedy=did_you_mean(option, options.model_fields),
            ) from None
        raise BadInput(
            f"{where}: option {option} = {first.get('input')!r}: {first['msg']}", remedy="correct the value"
        ) from None


def pick_device(device: str) -> str:
    """`auto` becomes cuda, mps or cpu, whichever is there; anything else is checked and passed on."""
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise BadInput(f"unknown device '{device}'", remedy="one of auto, cpu, cuda, cuda:1, mps") from None
    if (kind == "cuda" and not torch.cuda.is_available()) or (
        kind == "mps" and not torch.backends.mps.is_available()
    ):
        raise BadInput(f"device '{device}' is not there", remedy="leave device at auto, or use cpu")
    return device


def out_of_memory(error: BaseException) -> bool:
    """Whether an accelerator ran out of memory, so that a smaller batch may go through."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "out of memory" in str(error).lower()
    )


@dataclass
class BatchSize:
    """Rows an accelerator takes at once: halved when its memory is full, and the smaller size is kept."""

    size: int

    def run(self, encode: Callable[[Sequence[Any], int], T], rows: Sequence[Any]) -> T:
        """`encode(rows, batch size)`, again with half the batch as long as that does not fit."""
        while True:
            try:
                return encode(rows, self.size)
            except Exception as error:
                if self.size == 1 or not out_of_memory(error):
                    raise
            self.size = max(1, self.size // 2)
            free()


def in_batches(rows: Sequence[Any], batch: int, run: Callable[[Sequence[Any]], Vectors]) -> Vectors:
    return np.concatenate([run(rows[start : start + batch]) for start in range(0, len(rows), batch)])


def precision(device: str, dtype: str) -> AbstractContextManager[Any]:
    """Arithmetic in a shorter number format, where one is asked for; weights stay as they were loaded."""
    import torch

    if dtype == "float32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=getattr(torch, dtype))


def free() -> None:
    """Give memory that nobody refers to any more back to the accelerator."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def normalised(vectors: Vectors) -> Vectors:
    """Rows of length 1; rows of zeros stay zeros."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1)).astype(np.float32)


def faults(vectors: Vectors, zero: CellError = ZERO) -> Iterator[tuple[int, CellError]]:
    """The rows that cannot be stored, each with its reason: NaN or infinite values, or nothing but zeros."""
    finite = np.isfinite(vectors).all(axis=1)
    for row in np.flatnonzero(~finite):
        yield int(row), NAN
    for row in np.flatnonzero(finite & ~vectors.any(axis=1)):
        yield int(row), zero
