"""From the file of a study of kind "msr" to its grid: every table checked before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from featurestore.errors import BadInput, did_you_mean
from recommender.config import Config
from recommender.msr.config import HISTORY, MsrConfig
from recommender.msr.pairs import PairOptions
from recommender.msr.preferences_recipe import PreferenceOptions
from recommender.msr.study.grid import KIND, Arm, MsrCell, MsrStudy, Of, Raw
from recommender.study.document import Document
from recommender.study.grid import Data
from recommender.study.reading import BACKBONES, LATEST, seeds_of

T = TypeVar("T")
SETTINGS = (
    "kind", "name", "seeds", "baselines", "reference", "data", "pairs", "options", "preset", "preference", "arm",
)  # fmt: skip
FLOORS = ("popularity", "chance")
OF_DATA = ("release", "items", "interactions", "format", "images_root", "features", "texts")
OF_ARM = ("zero_shot", "preset", "rates")  # besides options of the model
OF_QUESTION = (
    "model", "preference", "history", "text", "summary", "image", "answers", "length", "max_pixels", "dtype",
)  # fmt: skip


class MsrReader:
    def __init__(self, document: Document, folder: Path) -> None:
        self.document, self.folder = document, folder

    def study(self) -> MsrStudy:
        document = self.document
        document.known(document.tables, SETTINGS)
        name = document.text("name")
        document.nameable(name, "name")
        data = {each: self._data(each) for each in document.table("data")}
        if len(data) != 1:
            raise BadInput(
                f"{document.path.name} names {len(data) or 'no'} data sets",
                remedy="a study of kind msr has one: [data.NAME] with release = FOLDER",
            )
        seeds = seeds_of(document)
        floors = document.names("baselines", known=FLOORS)
        document.known(document.table("pairs"), PairOptions.model_fields, "pairs", what="option")
        pairs = self._checked(lambda: PairOptions.of(**document.table("pairs")), "pairs")
        preferences = {each: self._preference(each) for each in document.table("preference")}
        arms = {each: self._arm(each, preferences) for each in document.table("arm")}
        if not arms:
            raise BadInput(f"{document.path.name} has nothing to train", remedy="add an [arm.NAME]")
        reference = document.text("reference") if "reference" in document.tables else next(iter(arms))
        if reference not in arms:
            raise document.refusal(
                f"unknown arm '{reference}'", "reference", remedy=did_you_mean(reference, arms)
            )
        of = next(iter(data))
        cells = [self._cell(name, of, floor, None, None, pairs) for floor in floors]
        cells += [
            self._cell(name, of, _backbone(arm), arm, None, pairs)
            for arm in arms.values()
            if arm.of == "zero-shot"
        ]
        cells += [
            self._cell(name, of, _backbone(arm), arm, seed, pairs)
            for seed in seeds
            for arm in arms.values()
            if arm.of != "zero-shot"
        ]
        return MsrStudy(
            raw=self._raw(of),
            path=document.path,
            name=name,
            data=data,
            backbones=tuple(dict.fromkeys(_backbone(arm) for arm in arms.values())),
            baselines=floors,
            towers=tuple(arms),
            seeds=seeds,
            reference=reference,
            folder=self.folder,
            grid=tuple(cells),
            arms=arms,
            preferences=preferences,
            pairs=pairs,
        )

    def _cell(
        self, study: str, data: str, backbone: str, arm: Arm | None, seed: int | None, pairs: PairOptions
    ) -> MsrCell:
        # of a sequential model also what is held out; of others, whose events these are
        config = Config.of()
        if arm is not None and isinstance(arm.options, Config):
            config = arm.options if seed is None else arm.options.model_copy(update={"seed": seed})
        return MsrCell(
            study,
            data,
            backbone,
            arm.name if arm else None,
            seed,
            config,
            (),
            self.folder,
            arm=arm,
            pairs=pairs,
        )

    def _data(self, name: str) -> Data:
        document = self.document
        document.nameable(name, "data", name)
        document.known(document.table("data", name), OF_DATA, "data", name)
        return Data(name, document.path.parent / document.text("data", name, "release"), LATEST)

    def _raw(self, name: str) -> Raw:
        """Files by their whole paths."""
        document, here = self.document, self.document.path.parent
        found: dict[str, Path | None] = {}
        for key in ("items", "interactions", "images_root", "features"):
            given = key in document.table("data", name)
            found[key] = (here / document.text("data", name, key)).resolve() if given else None
        texts = {
            each: (here / document.text("data", name, "texts", each)).resolve()
            for each in document.table("data", name, "texts")
        }
        kind = document.text("data", name, "format") if "format" in document.table("data", name) else None
        return Raw(**found, format=kind, texts=texts)

    def _preference(self, name: str) -> PreferenceOptions:
        table = self.document.table("preference", name)
        if name == HISTORY:
            raise self.document.refusal(f"'{HISTORY}' is what is not written", "preference", name)
        self.document.known(table, PreferenceOptions.model_fields, "preference", name, what="option")
        return self._checked(lambda: PreferenceOptions.of(**table), "preference", name)

    def _arm(self, name: str, preferences: dict[str, PreferenceOptions]) -> Arm:
        document = self.document
        document.nameable(name, "arm", name)
        table = document.table("arm", name)
        if "backbone" in table:
            return self._sequential(name, table)
        document.known(table, (*MsrConfig.model_fields, *OF_ARM), "arm", name, what="option")
        document.known(
            document.table("options"), (*MsrConfig.model_fields, "rates"), "options", what="option"
        )
        given = document.table("options") | table
        if "seed" in given:
            raise document.refusal(
                "seed is an axis of the study", "arm", name, "seed", remedy="list it in seeds"
            )
        preset = given.pop("preset", document.tables.get("preset"))
        rates = given.pop("rates", [])
        zero_shot = given.pop("zero_shot", False)
        if not isinstance(zero_shot, bool):
            raise document.refusal("zero_shot is true or false", "arm", name, "zero_shot")
        if zero_shot and (idle := [key for key in table if key not in (*OF_QUESTION, "zero_shot", "preset")]):
            raise document.refusal(
                f"{idle[0]} is of training, and this arm is not trained",
                "arm",
                name,
                idle[0],
                remedy="leave it out",
            )
        if not isinstance(rates, list) or not all(
            isinstance(rate, int | float) and rate > 0 for rate in rates
        ):
            raise document.refusal("rates are learning rates above 0", "arm", name, "rates")
        asked = given.get("preference", HISTORY)
        if asked != HISTORY and asked not in preferences:
            raise document.refusal(
                f"unknown preference '{asked}'",
                "arm",
                name,
                "preference",
                remedy=did_you_mean(str(asked), [HISTORY, *preferences]),
            )
        if "model" not in given:
            raise document.refusal(
                "no model is named", "arm", name, remedy="model = FOLDER or hub id in [options], for all arms"
            )
        named = str(given["model"])
        given["model"] = self._model(named)
        options = self._checked(lambda: MsrConfig.of(preset, **given), "arm", name)
        of: Of = "zero-shot" if zero_shot else "fine-tuned"
        chosen = () if zero_shot else tuple(float(rate) for rate in rates)
        return Arm(name, of, options, preferences.get(str(asked)), chosen, named)

    def _sequential(self, name: str, table: dict[str, Any]) -> Arm:
        document = self.document
        document.known(table, Config.model_fields, "arm", name, what="training option")
        document.known([str(table["backbone"])], BACKBONES, "arm", name, what="backbone")
        for held in ("seed", "split", "k_core", "hide_items"):
            if held in table:
                raise document.refusal(
                    f"{held} is the same for all arms", "arm", name, held, remedy="leave it out"
                )
        return Arm(name, "sequential", self._checked(lambda: Config.of(**table), "arm", name))

    def _model(self, given: str) -> str:
        """A folder beside the file by its whole path, so that the cells' processes find it; else as it is."""
        beside = self.document.path.parent / given
        return str(beside.resolve()) if beside.is_dir() else given

    def _checked(self, make: Callable[[], T], *keys: str) -> T:
        try:
            return make()
        except BadInput as error:
            raise self.document.refusal(error.message, *keys, remedy=error.remedy) from None


def _backbone(arm: Arm) -> str:
    return arm.options.backbone if isinstance(arm.options, Config) else KIND
