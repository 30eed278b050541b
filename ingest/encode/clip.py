"""`open_clip`: contrastive text-and-image models: two encoders whose vectors can be compared with each other.

    model = "ViT-B-32"   pretrained = "laion2b_s34b_b79k"     an architecture and a tag of open_clip's list
    model = "org/repo"   or "path/to/folder"                  a hub repository or folder with open_clip_config.json

An architecture without `pretrained` is refused: the library would fill it with random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from featurestore.errors import BadInput, ModelUnavailable, did_you_mean
from ingest.encode.base import (
    BatchSize,
    Maker,
    Options,
    Resolved,
    Role,
    TextOptions,
    Tools,
    Vectors,
    in_batches,
    pick_device,
    precision,
    register,
)
from ingest.encode.models import OPEN_CLIP, Found, Models, Weights, loading

if TYPE_CHECKING:
    from PIL import Image

    from featurestore.recipe import Recipe

BATCH, ACCELERATOR_BATCH = 16, 128
HUB = "hf-hub:"


class ClipImageOptions(Options):
    pretrained: str | None = Field(
        default=None, description="Tag of the weights, where model names an architecture of open_clip."
    )
    normalize: bool = Field(default=True, description="Bring vectors to length 1.")
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        default="float32", description="Number format of the arithmetic."
    )


class ClipTextOptions(ClipImageOptions, TextOptions):
    labels: bool = Field(
        default=False, description="Write each column's name before its value in an item's document."
    )


class _OpenClip(Maker[ClipImageOptions]):
    code_version: ClassVar[int] = 1

    def resolve(
        self, options: ClipImageOptions, model: str | None, models: Models, device: str = "auto"
    ) -> Resolved:
        if model is None:
            raise BadInput(
                "encoder 'open_clip' needs a model",
                remedy='model = "ViT-B-32", pretrained = "laion2b_s34b_b79k"',
            )
        architecture, found = _find(model, options.pretrained, models)
        resolved = options.model_dump(mode="json") | {"architecture": architecture}
        clip = load_library(str(found.folder), architecture, options.pretrained, pick_device(device))
        return Resolved(options=resolved, dim=clip.dim, model=found.ref)

    def repository(self, options: ClipImageOptions, model: str, models: Models) -> str:
        return _named(model, options.pretrained, models)[1]

    def _clip(self, recipe: Recipe, tools: Tools) -> tuple[Clip, int]:
        assert recipe.model is not None
        options: dict[str, Any] = dict(recipe.options)
        weights = _weights(options["architecture"], options["pretrained"])
        hint = None if options["architecture"] else tools.hint
        folder = tools.models.open(recipe.model, weights, hint)
        clip = load_library(
            str(folder), options["architecture"], options["pretrained"], pick_device(tools.device)
        )
        return clip, tools.batch_size or (BATCH if clip.device == "cpu" else ACCELERATOR_BATCH)


@register("open_clip", kind="embed_text", options=ClipTextOptions)
class OpenClipText(_OpenClip):
    def load(self, recipe: Recipe, tools: Tools) -> ClipTextEncoder:
        clip, batch = self._clip(recipe, tools)
        return ClipTextEncoder(clip, recipe.options, batch)


@register("open_clip", kind="embed_image", options=ClipImageOptions)
class OpenClipImage(_OpenClip):
    def load(self, recipe: Recipe, tools: Tools) -> ClipImageEncoder:
        clip, batch = self._clip(recipe, tools)
        return ClipImageEncoder(clip, recipe.options, batch)


@dataclass(frozen=True)
class Clip:
    """A loaded model with its own preprocessing and tokenizer."""

    model: Any
    transform: Any
    tokenizer: Any
    device: str
    dim: int

    def text(self, texts: Sequence[str], options: dict[str, Any]) -> Vectors:
        import torch

        tokens = self.tokenizer(list(texts)).to(self.device)
        with torch.inference_mode(), precision(self.device, options["dtype"]):
            vectors = self.model.encode_text(tokens, normalize=options["normalize"])
        return vectors.float().cpu().numpy()  # type: ignore[no-any-return]

    def image(self, prepared: Sequence[Any], options: dict[str, Any]) -> Vectors:
        import torch

        batch = torch.stack(list(prepared)).to(self.device)
        with torch.inference_mode(), precision(self.device, options["dtype"]):
            vectors = self.model.encode_image(batch, normalize=options["normalize"])
        return vectors.float().cpu().numpy()  # type: ignore[no-any-return]


class ClipTextEncoder:
    def __init__(self, clip: Clip, options: dict[str, Any], batch_size: int) -> None:
        self.dim, self.batch_size = clip.dim, batch_size
        self._clip, self._options, self._rows = clip, options, BatchSize(batch_size)

    def encode(self, texts: Sequence[str], role: Role = "document") -> Vectors:
        """CLIP reads documents and queries alike, and cuts both to the model's 77 tokens or so."""
        return self._rows.run(lambda rows, batch: in_batches(rows, batch, self._run), texts)

    def _run(self, texts: Sequence[str]) -> Vectors:
        return self._clip.text(texts, self._options)


class ClipImageEncoder:
    """Pictures, and texts in the same space (`encode_text`), which makes text-to-image search."""

    def __init__(self, clip: Clip, options: dict[str, Any], batch_size: int) -> None:
        self.dim, self.batch_size = clip.dim, batch_size
        self._clip, self._options, self._rows = clip, options, BatchSize(batch_size)

    def prepare(self, image: Image.Image) -> Any:
        return self._clip.transform(image)

    def encode(self, prepared: Sequence[Any]) -> Vectors:
        return self._rows.run(lambda rows, batch: in_batches(rows, batch, self._run), prepared)

    def encode_text(self, texts: Sequence[str]) -> Vectors:
        return self._clip.text(texts, self._options)

    def _run(self, prepared: Sequence[Any]) -> Vectors:
        return self._clip.image(prepared, self._options)


@lru_cache(maxsize=2)
def load_library(folder: str, architecture: str | None, pretrained: str | None, device: str) -> Clip:
    """The model in a folder: by its own configuration, or as the weights of an architecture that the library knows."""
    import open_clip
    import torch

    with loading(folder):
        if architecture is None:
            model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}", device=device)
            tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        else:
            tag = open_clip.get_pretrained_cfg(architecture, pretrained or "")
            model, _, transform = open_clip.create_model_and_transforms(
                architecture,
                pretrained=str(_weight_file(Path(folder), _weights(architecture, pretrained))),
                device=device,
                force_quick_gelu=bool(tag.get("quick_gelu")),
                image_mean=tag.get("mean"),
                image_std=tag.get("std"),
                image_interpolation=tag.get("interpolation"),
                image_resize_mode=tag.get("resize_mode"),
            )
            tokenizer = open_clip.get_tokenizer(architecture)
        model.eval()
        with torch.inference_mode():
            dim = int(model.encode_text(tokenizer(["a"]).to(device)).shape[1])
    return Clip(model, transform, tokenizer, device, dim)


def _find(model: str, pretrained: str | None, models: Models) -> tuple[str | None, Found]:
    """(architecture or None, the model): None where the folder or repository brings its own configuration."""
    architecture, repository = _named(model, pretrained, models)
    if architecture is None:
        return None, _configured(repository, models)
    return architecture, models.find(repository, _weights(architecture, pretrained))


def _named(model: str, pretrained: str | None, models: Models) -> tuple[str | None, str]:
    """(architecture or None, the folder or hub repository with its weights)."""
    import open_clip

    architecture = model.replace("/", "-")
    local = models.local(model) is not None or model.startswith(HUB)
    if local or (architecture not in open_clip.list_models() and "/" in model):
        if pretrained is not None:
            raise BadInput(
                f"pretrained = '{pretrained}' goes with an architecture, and '{model}' brings weights",
                remedy="remove pretrained",
            )
        return None, model.removeprefix(HUB)
    if architecture not in open_clip.list_models():
        raise BadInput(
            f"open_clip has no model '{model}'", remedy=did_you_mean(model, open_clip.list_models())
        )
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if pretrained is None:
        raise ModelUnavailable(
            f"model '{model}' is named without weights, and random ones are never used",
            remedy=f"pretrained = one of: {', '.join(tags) or 'none known; use a folder or a hub repository'}",
        )
    if pretrained not in tags:
        raise BadInput(
            f"open_clip has no weights '{pretrained}' for '{model}'", remedy=did_you_mean(pretrained, tags)
        )
    return architecture, _tag(architecture, pretrained)[0]


def _configured(model: str, models: Models) -> Found:
    found = models.find(model, OPEN_CLIP)
    if not (found.folder / "open_clip_config.json").is_file():
        raise ModelUnavailable(
            f"{found.folder} has no open_clip_config.json, so it is not known what the weights belong to",
            remedy="bring the whole repository, its open_clip_config.json included",
        )
    return found


def _tag(architecture: str, pretrained: str) -> tuple[str, str]:
    """(hub repository, file or "") of a tag; open_clip writes them as org/repo/file."""
    import open_clip

    place = open_clip.get_pretrained_cfg(architecture, pretrained).get("hf_hub", "")
    owner, _, rest = place.partition("/")
    repository, _, file = rest.partition("/")
    if not repository:
        raise ModelUnavailable(
            f"the weights '{pretrained}' of '{architecture}' are not on the hub",
            remedy="choose another tag, or use a folder",
        )
    return f"{owner}/{repository}", file


def _weights(architecture: str | None, pretrained: str | None) -> Weights:
    """Which file of a repository to load: the tag's own, a safetensors twin of it first."""
    if architecture is None or pretrained is None:
        return OPEN_CLIP
    file = _tag(architecture, pretrained)[1]
    if not file:
        return OPEN_CLIP
    return Weights((f"{Path(file).stem}.safetensors", file))


def _weight_file(folder: Path, weights: Weights) -> Path:
    for pattern in weights.patterns:
        for file in sorted(folder.glob(pattern)):
            return file
    raise FileNotFoundError(f"no weights in {folder}")
