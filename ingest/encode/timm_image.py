"""`timm`: pooled features of any pretrained timm image model, with the model's own evaluation transform.

model = "resnet50.a1_in1k"      a name of timm's list, with or without tag
model = "org/repo"              any hub repository in timm's format
model = "path/to/folder"        a folder with config.json and weights
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from featurestore.errors import BadInput, ModelUnavailable, did_you_mean
from ingest.encode.base import (
    BatchSize,
    Maker,
    Options,
    Resolved,
    Tools,
    Vectors,
    in_batches,
    pick_device,
    precision,
    register,
)
from ingest.encode.models import TIMM, Models, loading

if TYPE_CHECKING:
    from PIL import Image

    from featurestore.recipe import Recipe

BATCH, ACCELERATOR_BATCH = 16, 128


class TimmOptions(Options):
    normalize: bool = Field(default=True, description="Bring vectors to length 1.")
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        default="float32", description="Number format of the arithmetic."
    )


@register("timm", kind="embed_image", options=TimmOptions)
class TimmImage(Maker[TimmOptions]):
    code_version: ClassVar[int] = 1

    def resolve(
        self, options: TimmOptions, model: str | None, models: Models, device: str = "auto"
    ) -> Resolved:
        if model is None:
            raise BadInput("encoder 'timm' needs a model", remedy='model = "resnet50.a1_in1k", or a folder')
        found = models.find(self.repository(options, model, models), TIMM)
        loaded, _ = load_library(str(found.folder), pick_device(device))
        return Resolved(options=options.model_dump(mode="json"), dim=_dim(loaded), model=found.ref)

    def repository(self, options: TimmOptions, model: str, models: Models) -> str:
        return model if models.local(model) is not None else _repository(model)

    def load(self, recipe: Recipe, tools: Tools) -> TimmEncoder:
        assert recipe.model is not None
        folder = tools.models.open(recipe.model, TIMM, tools.hint)
        device = pick_device(tools.device)
        model, transform = load_library(str(folder), device)
        batch = tools.batch_size or (BATCH if device == "cpu" else ACCELERATOR_BATCH)
        return TimmEncoder(model, transform, recipe.options, device, batch)


class TimmEncoder:
    def __init__(
        self, model: Any, transform: Any, options: dict[str, Any], device: str, batch_size: int
    ) -> None:
        self.dim, self.batch_size = _dim(model), batch_size
        self._model, self._transform, self._options, self._device = model, transform, options, device
        self._rows = BatchSize(batch_size)

    def prepare(self, image: Image.Image) -> Any:
        return self._transform(image)

    def encode(self, prepared: Sequence[Any]) -> Vectors:
        return self._rows.run(lambda rows, batch: in_batches(rows, batch, self._run), prepared)

    def _run(self, prepared: Sequence[Any]) -> Vectors:
        import torch

        batch = torch.stack(list(prepared)).to(self._device)
        with torch.inference_mode(), precision(self._device, self._options["dtype"]):
            vectors = self._model(batch).float()
            if self._options["normalize"]:
                vectors = torch.nn.functional.normalize(vectors, dim=1)
        return vectors.cpu().numpy()  # type: ignore[no-any-return]


@lru_cache(maxsize=2)
def load_library(folder: str, device: str) -> tuple[Any, Any]:
    """(model without its classifier, evaluation transform) of a folder in timm's format."""
    import timm

    with loading(folder):
        model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval().to(device)
        settings = timm.data.resolve_model_data_config(model)
        transform = timm.data.create_transform(**settings, is_training=False)
    return model, transform


def _dim(model: Any) -> int:
    """Size of the pooled output: what the head leaves, which for some models is not num_features."""
    return int(getattr(model, "head_hidden_size", None) or model.num_features)


def _repository(model: str) -> str:
    """The hub repository of a name on timm's list; a name with a slash is one already."""
    if "/" in model:
        return model.removeprefix("hf-hub:")
    import timm

    try:
        settings = timm.get_pretrained_cfg(model)
    except (RuntimeError, ValueError, KeyError):
        settings = None
    if settings is None or model.split(".")[0] not in timm.list_models():
        raise BadInput(f"timm has no model '{model}'", remedy=did_you_mean(model, timm.list_pretrained()))
    if not settings.hf_hub_id:
        raise ModelUnavailable(
            f"timm has no weights on the hub for '{model}'", remedy="choose another model, or use a folder"
        )
    return str(settings.hf_hub_id)
