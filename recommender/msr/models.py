"""From a run, a folder or a hub id to a loaded model and its prompt.

A run names its model by the hub's commit or the folder's hash, and only that one is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.errors import BadInput, NotFound
from ingest.describe.transformers_vlm import (
    SAFETENSORS,
    Chat,
    TransformersOptions,
    load_chat,
    saved_dtype,
)
from ingest.encode.models import Found, Models
from recommender.fit import pick_device
from recommender.msr import lora
from recommender.msr.config import MsrConfig
from recommender.msr.prompt import Prompt
from recommender.runs import MSR, Run

if TYPE_CHECKING:
    from featurestore.recipe import ModelRef


@dataclass(frozen=True)
class Loaded:
    """A model, in `eval` and with its adapters where there are any. ref: which it is; None where nobody asked."""

    model: Any
    prompt: Prompt
    config: MsrConfig
    ref: ModelRef | None = None


def resolve(root: str | Path, spec: str, *, read_only: bool = False) -> Found:
    """Which model a name stands for, pinned. root: the store, where relative folders start; with read_only nothing is
    written there or fetched. Raises ModelUnavailable.
    """
    return Models(root, read_only=read_only).find(spec, SAFETENSORS)


def load(folder: Path, config: MsrConfig, device: str = "auto", ref: ModelRef | None = None) -> Loaded:
    """The model in a folder, without adapters. Raises ModelUnavailable, and BadInput where it cannot be asked so."""
    dtype = saved_dtype(folder) if config.dtype == "auto" else config.dtype
    if dtype == "float16":
        dtype = "bfloat16"  # in float16 gradients vanish
    options = TransformersOptions.model_validate(
        {"prompt": "", "dtype": dtype, "max_pixels": config.max_pixels}
    )
    chat = load_chat(folder, options, str(pick_device(device)))
    chat.model.eval()
    if getattr(chat.model.config.get_text_config(), "is_encoder_decoder", False):
        raise BadInput(
            f"the model in {folder} reads with an encoder; an answer is looked for at the end of what a decoder reads",
            remedy="a decoder-only model, such as Qwen2.5-VL, LLaVA-NeXT or SmolLM2",
        )
    if config.image and not chat.sees:
        raise BadInput(
            f"the model in {folder} reads no pictures", remedy="image = false, or a model that sees"
        )
    return Loaded(chat.model, prompt_of(chat, config), config, ref)


def prompt_of(chat: Chat, config: MsrConfig) -> Prompt:
    return Prompt(
        chat,
        length=config.length,
        max_pixels=config.max_pixels,
        answers=config.answers,
        picture=config.image is not False,
    )


def open_model(
    source: Run | str | Path,
    *,
    adapter: str | Path | None = None,
    zero_shot: bool = False,
    config: MsrConfig | None = None,
    device: str = "auto",
) -> Loaded:
    """See `ranker.Ranker.open`."""
    run = _run(source)
    if run is None:
        spec = str(source)
        models = Models(Path.cwd(), read_only=True)
        folder = models.local(spec) or models.find(spec, SAFETENSORS).folder
        if not folder.is_dir():
            raise NotFound(
                f"there is no model or run at {folder}", remedy="a run, a model's folder, or a hub id"
            )
        loaded = load(folder, config or MsrConfig.of(model=spec), device)
    else:
        from featurestore.recipe import ModelRef

        ref = ModelRef.model_validate(run.about["model"])
        own: MsrConfig = run.options
        folder = Models(run.root, read_only=True).open(ref, SAFETENSORS, hint=own.model)
        loaded = load(folder, config or own, device, ref)
        if not zero_shot and adapter is None:
            adapter = run.folder / lora.FOLDER
            if not (adapter / lora.WEIGHTS).exists():
                raise BadInput(
                    f"run {run.name} has no adapters yet", remedy="let it train for an epoch first"
                )
    if adapter is not None and not zero_shot:
        lora.load(loaded.model, Path(adapter))
    return loaded


def _run(source: Run | str | Path) -> Run | None:
    """The run that `source` is or names by its folder; None for a model. Raises BadInput for a run of another kind."""
    if not isinstance(source, Run):
        if not (Path(source) / "run.json").is_file():
            return None
        source = Run(source)
    source.check(MSR)
    return source
