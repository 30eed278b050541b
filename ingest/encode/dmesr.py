"""`fuse`: vectors that fitted weights make of an item's other vectors; its encoder is `dmesr`, the dual view.

Nothing here is fitted: `dualview fit` trains the weights on items alone, or takes those of a run
(`recommender.fusion`), and `materialize` applies them frozen, to items that are there and to items that come later.
This file is light; torch is loaded with the weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ingest.encode.base import Maker, Options, Resolved, Tools, register

if TYPE_CHECKING:
    from featurestore.recipe import Recipe
    from ingest.encode.models import Models
    from ingest.fuse.apply import Fuser

ARTIFACT = "fusion"
BATCH = 4096  # items fused at once
APPLIED = ("output", "normalised", "same_fit")  # options that no fit depends on


class FuseOptions(Options):
    """What is taken of the fused item, how the weights are built, and how they are fitted on items alone."""

    output: Literal["joint", "coarse", "fine", "aligned"] = Field(
        default="joint",
        description="Both fused views side by side; one of them; or the aligned coarse tokens, several an item.",
    )
    normalised: bool = Field(
        default=True,
        description="Unit length; in joint each view apart, so that a cosine weighs both views equally.",
    )
    same_fit: str | None = Field(
        default=None, description="Another feature of kind fuse, whose fitted weights this one uses."
    )

    width: int = Field(default=64, ge=1, le=4096, description="Size of each view; joint has twice that.")
    heads: int = Field(
        default=2, ge=1, description="Heads of the attention between the sides; must divide width."
    )
    adapter: Literal["linear", "bottleneck", "mlp", "moe"] = Field(
        default="bottleneck", description="From a stored vector to width; one for each input."
    )
    attend: Literal["both", "coarse", "fine", "none"] = Field(
        default="both", description="Which side's tokens attend to the other's."
    )
    residual: bool = Field(default=True, description="Add what asks to what the attention finds.")
    norm: bool = Field(default=True, description="LayerNorm on each view.")
    pooling: Literal["mean", "gated"] = Field(
        default="mean", description="How a side's tokens become a view."
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Share of values dropped while fitting.")
    scaling: Literal["none", "standard", "whiten"] = Field(
        default="none",
        description="Of stored vectors: as they are, unit variance a dimension, or decorrelated.",
    )
    scaling_dim: int = Field(default=128, ge=1, description="With whiten, keep so many leading directions.")

    align: Literal["infonce", "soft", "none"] = Field(
        default="infonce", description="Loss between an item's coarse inputs; none: without."
    )
    token_dropout: float = Field(
        default=0.5, gt=0, lt=1, description="Share of an item's tokens that each of its two halves lacks."
    )
    temperature: float = Field(
        default=0.1,
        ge=0.01,
        le=1,
        description="What cosines are divided by in the losses, but for soft alignment: 1.",
    )
    learn_temperature: bool = Field(default=False, description="Learn it, from that value on.")
    epochs: int = Field(default=40, ge=1, description="Most passes over the items.")
    patience: int = Field(default=6, ge=1, description="Epochs without a better measure before it ends.")
    batch: int = Field(
        default=256, ge=2, description="Different items in a step; each is a negative of others."
    )
    lr: float = Field(default=1e-3, gt=0, description="Learning rate of AdamW.")
    seed: int = Field(
        default=0, ge=0, description="Of first weights, batches, halves and the items held out."
    )
    hold_out: float = Field(
        default=0.1, gt=0, le=0.5, description="Share of items that are measured on and not learned from."
    )

    @property
    def asked(self) -> dict[str, Any]:
        """What a fit depends on."""
        return self.model_dump(mode="json", exclude=set(APPLIED))


@register("dmesr", kind="fuse", options=FuseOptions)
class Fused(Maker[FuseOptions]):
    code_version: ClassVar[int] = 1  # of what fitted weights make of vectors
    artifact: ClassVar[str] = ARTIFACT
    needs_model: ClassVar[bool] = False

    def resolve(
        self, options: FuseOptions, model: str | None, models: Models, device: str = "auto"
    ) -> Resolved:
        raise TypeError("the recipe of a fused feature comes from its fit: ingest.fuse.recipes")

    def load(self, recipe: Recipe, tools: Tools) -> Fuser:
        from ingest.encode.base import pick_device
        from ingest.fuse.apply import Fuser

        return Fuser.load(
            tools.artifact(recipe, ARTIFACT),
            output=str(recipe.options["output"]),
            normalised=bool(recipe.options["normalised"]),
            batch_size=tools.batch_size or BATCH,
            device=pick_device(tools.device),
        )
