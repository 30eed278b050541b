"""The grid of a study of yes/no models: arms x seeds, and floors, all on the same pairs of one data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from recommender.config import Config
from recommender.msr.config import HISTORY, MsrConfig
from recommender.msr.pairs import PairOptions
from recommender.msr.preferences_recipe import PreferenceOptions
from recommender.study.grid import SHUFFLE, Cell, Study
from recommender.study.state import Sources

if TYPE_CHECKING:
    from recommender.study.work import Work

KIND = "msr"
Of = Literal["fine-tuned", "zero-shot", "sequential", "floor"]


@dataclass(frozen=True)
class Arm:
    """One way to score candidates. options: an MsrConfig, or a Config of a sequential model.

    preference: how what stands for a user is made, None for a history of titles. rates: learning rates that are tried,
    of which validation chooses; empty: the options' own. model: as the file names it, the same on every machine.
    """

    name: str
    of: Of
    options: MsrConfig | Config
    preference: PreferenceOptions | None = None
    rates: tuple[float, ...] = ()
    model: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """Everything that decides what it says, besides pairs, seed and data."""
        dumped = self.options.model_dump(mode="json", exclude={"seed"})
        kept = {f"option.{name}": value for name, value in dumped.items()} | {"of": self.of}
        if self.of in ("fine-tuned", "zero-shot"):
            kept["option.model"] = self.model
            kept["rates"] = list(self.rates)
            told = self.preference.model_dump(mode="json") if self.preference else {"backend": HISTORY}
            kept |= {f"preference.{name}": value for name, value in told.items()}
        return kept


@dataclass(frozen=True)
class MsrCell(Cell):
    """An arm with a seed; zero-shot has none, floors have neither. arm: None for a floor."""

    arm: Arm | None = None
    pairs: PairOptions = field(default_factory=PairOptions)

    kind: ClassVar[str] = KIND
    shown: ClassVar[str] = "AUC"

    @property
    def of(self) -> Of:
        return self.arm.of if self.arm is not None else "floor"

    @property
    def options(self) -> dict[str, Any]:
        drawn = {f"pairs.{name}": value for name, value in self.pairs.model_dump(mode="json").items()}
        return drawn | (self.arm.facts if self.arm is not None else {"of": "floor"})

    @property
    def _plain(self) -> dict[str, Any]:
        """What each option is where nobody says otherwise."""
        plain: dict[str, Any] = {f"pairs.{k}": v for k, v in PairOptions().model_dump(mode="json").items()}
        if self.arm is not None:
            defaults: Any = MsrConfig.of(model="") if isinstance(self.arm.options, MsrConfig) else Config.of()
            plain |= Arm("", self.of, defaults, PreferenceOptions.of(backend="")).facts
        return plain

    @property
    def told_options(self) -> dict[str, Any]:
        plain = self._plain
        told = {name: value for name, value in self.options.items() if value != plain.get(name)}
        return {name.removeprefix("option."): value for name, value in told.items() if name != "of"}

    @property
    def features(self) -> tuple[str, ...]:
        """The features that it reads: of a sequential model its vectors, of others the summaries."""
        if self.arm is None:
            return ()
        if isinstance(self.arm.options, Config):
            return self.arm.options.features
        made = self.arm.preference.summary if self.arm.preference else None
        return tuple(dict.fromkeys(name for name in (self.arm.options.summary, made) if name))

    def changed(self, record: dict[str, Any]) -> list[str]:
        then, now, plain = record["config"], self.options, self._plain
        then = {name: plain[name] for name in now if name in plain} | then  # it may be older than an option
        told = [
            f"{name} was {then.get(name)!r}, is {now.get(name)!r}"
            for name in dict.fromkeys([*then, *now])
            if then.get(name) != now.get(name)
        ]
        return [*told, *([] if record[SHUFFLE] == [] else ["it shuffled features"])]

    def read_else(self, record: dict[str, Any], sources: Sources) -> list[str]:
        """Texts, pictures and preferences. Records of before that was kept are judged without."""
        then: dict[str, Any] | None = record.get("shown")
        if then is None:
            return []
        from recommender.msr.study.shown import differs

        study: Any = sources.study
        return differs(study, self, then)

    def worker(self, out: Path, sources: Sources, device: str, told: Callable[[str], None]) -> Work:
        from recommender.msr.study.work import MsrWork

        return MsrWork(self, out, sources, device, told)


@dataclass(frozen=True)
class Raw:
    """What a store is made of where it is not there yet; whole paths. texts: feature -> a file of imported texts."""

    items: Path | None = None
    interactions: Path | None = None
    format: str | None = None
    images_root: Path | None = None
    features: Path | None = None
    texts: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class MsrStudy(Study):
    """arms: by name, in the file's order. preferences: by name, as the file has them."""

    raw: Raw = field(default_factory=Raw)
    arms: Mapping[str, Arm] = field(default_factory=dict)
    preferences: Mapping[str, PreferenceOptions] = field(default_factory=dict)
    pairs: PairOptions = field(default_factory=PairOptions)

    kind: ClassVar[str] = KIND

    def prepare(self, device: str = "auto", progress: Any = None) -> list[dict[str, Any]]:
        """Make the preferences that arms read and that are not there yet; one report each."""
        from recommender.msr.study.preparing import prepare

        return prepare(self, device, progress)
