"""Low-rank adapters on the language part of a model (LoRA, Hu et al. 2021, arXiv 2106.09685), by peft.

Layers are named by their full path, found under the decoder: a layer of the same name in a vision tower or a projector
gets none, and every weight but the adapters' is frozen. What is saved is the adapters alone, as peft has them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from featurestore.errors import BadInput, MissingExtra, NotFound
from featurestore.files import replacing, write_json

if TYPE_CHECKING:
    from torch import Tensor, nn

FOLDER = "adapter"
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
NAME = "default"  # peft's of the only adapter there is
PREFIX = "base_model.model."  # before every name in a file of peft's
ATTENTION = re.compile(r"\.(self_attn|attention|attn|self_attention|linear_attn|mixer)\.")


def language_layers(model: Any, targets: Literal["linear", "attention"] = "linear") -> list[str]:
    """Full paths of the linear layers of the language part, in order. Raises BadInput where there are none."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    decoder = model.get_decoder()
    prefix = next(name for name, module in model.named_modules() if module is decoder)
    blind = towers(model)
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and name.startswith(f"{prefix}." if prefix else "")
        and not any(name.startswith(f"{tower}.") for tower in blind)
        and (targets == "linear" or ATTENTION.search(f".{name}"))
        and module is not model.get_output_embeddings()
    ]
    if not found:
        raise BadInput(
            f"{type(model).__name__} has no {targets} layers in its language part that are known here",
            remedy="targets = linear, or another model",
        )
    return found


def towers(model: Any) -> list[str]:
    """Paths of what encodes pictures or sounds, which a model may hide inside what it calls its decoder."""
    decoder = model.get_decoder()
    configs = [
        value
        for name, value in vars(model.config).items()
        if name.endswith("_config") and name not in ("text_config", "quantization_config")
    ]
    return [
        name
        for name, module in model.named_modules()
        if module is not decoder and any(getattr(module, "config", None) is config for config in configs)
    ]


def add(
    model: Any,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    targets: Literal["linear", "attention"] = "linear",
) -> list[nn.Parameter]:
    """Put adapters on a model, in place, and freeze everything else; returns their weights, float32.

    Drawn from torch's global generator. At first they change nothing: one of the two matrices is zero.
    """
    layers = language_layers(model, targets)
    _inject(model, {"r": rank, "lora_alpha": alpha, "lora_dropout": dropout}, layers)
    adapted = [name for name, module in model.named_modules() if hasattr(module, "lora_A")]
    assert sorted(adapted) == sorted(layers), "peft adapted other layers than it was told to"
    return weights(model)


def weights(model: Any) -> list[nn.Parameter]:
    """The adapters' weights, in the order of the model."""
    return [weight for name, weight in model.named_parameters() if ".lora_" in name]


def _inject(model: Any, options: Mapping[str, Any], layers: list[str]) -> None:
    if find_spec("peft") is None:
        raise MissingExtra("adapters need the package peft", remedy='pip install "dualview[msr]"')
    from peft import LoraConfig, inject_adapter_in_model

    # a list of paths would be matched by their ends, which a path of another part may share
    pattern = "|".join(re.escape(name) for name in layers)
    inject_adapter_in_model(LoraConfig(**options, target_modules=f"({pattern})"), model, NAME)
    for name, weight in model.named_parameters():
        adapter = ".lora_" in name
        weight.requires_grad_(adapter)
        if adapter:
            weight.data = weight.data.float()


def save(model: Any, folder: Path, tensors: Mapping[str, Tensor], base: str) -> None:
    """Write adapters as peft reads them: `PeftModel.from_pretrained(model, folder)`.

    tensors: by their names in the model, with others among them or not. base: what the model is called.
    """
    from safetensors.torch import save_file

    config = model.peft_config[NAME].to_dict()
    config |= {"base_model_name_or_path": base, "inference_mode": True}
    kept = {
        PREFIX + name.replace(f".{NAME}.", "."): value.detach().cpu().contiguous()
        for name, value in tensors.items()
        if ".lora_" in name
    }
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS) as aside:
        save_file(kept, aside, metadata={"format": "pt"})
    write_json(folder / CONFIG, json.loads(json.dumps(config, default=_plain)))


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | frozenset) else str(value)


def load(model: Any, folder: Path) -> None:
    """Put saved adapters on a model, in place.

    Raises NotFound where there are none, BadInput where they are not this model's or no LoRA.
    """
    from safetensors.torch import load_file

    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise NotFound(
                f"{folder} holds no {name}", remedy="a folder of adapters in safetensors, or no adapter"
            )
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if config.get("peft_type") != "LORA":
        raise BadInput(f"the adapters in {folder} are {config.get('peft_type')}, not LORA")
    tensors = load_file(folder / WEIGHTS)
    places: dict[str, Tensor] = {}
    for name, value in tensors.items():
        path, _, rest = name.removeprefix(PREFIX).rpartition(".lora_")
        places[f"{path}.lora_{rest.replace('.weight', f'.{NAME}.weight')}"] = value
    layers = sorted({name.rpartition(".lora_")[0] for name in places})
    modules = dict(model.named_modules())
    if unknown := [name for name in layers if name not in modules]:
        raise BadInput(
            f"the adapters in {folder} are for another model: this one has no layer {unknown[0]}",
            remedy=f"the model that they were trained on: {config.get('base_model_name_or_path')}",
        )
    options = {
        "r": config["r"],
        "lora_alpha": config["lora_alpha"],
        "use_rslora": config.get("use_rslora", False),
    }
    _inject(model, options | {"lora_dropout": 0.0}, layers)
    own = {name: weight for name, weight in model.named_parameters() if ".lora_" in name}
    wrong = [name for name in own if name not in places or places[name].shape != own[name].shape]
    if wrong or len(places) != len(own):
        raise BadInput(
            f"the adapters in {folder} do not fit this model's layers ({(wrong or sorted(places))[0]})",
            remedy=f"the model that they were trained on: {config.get('base_model_name_or_path')}",
        )
    for name, weight in own.items():
        weight.data.copy_(places[name])
    model.eval()
