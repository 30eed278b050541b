"""The store's encoders for texts and pictures of requests: one at a time, and the last texts remembered."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featurestore.errors import BadInput
from ingest.encode.query import ReleaseEncoder

if TYPE_CHECKING:
    from featurestore.release import Release
    from featurestore.store import Store

KEPT = 1_000  # vectors of texts

Float32 = npt.NDArray[np.float32]


class Encoding:
    """An encoder as `featurestore.query` takes it, safe to use from several threads."""

    def __init__(self, store: Store, release: Release, device: str) -> None:
        self._encoder = ReleaseEncoder(store, release, device)
        self._busy = threading.Lock()
        self.loaded: set[bool] = set()  # True: has encoded a text; False: a picture
        self._texts: OrderedDict[tuple[str, str], Float32] = OrderedDict()

    def fitting(self, *, of_text: bool) -> list[str]:
        """Features that a text (or a picture) can ask, best first. Looks at recipes only, and waits for nobody."""
        return self._encoder.fitting(of_text=of_text)

    def load(self, feature: str) -> None:
        """Load what encodes a text for a feature."""
        with suppress(BadInput):  # a word that is not known is no failure
            self.text(feature, "a")
        self.loaded.add(True)

    def text(self, feature: str, text: str) -> Float32:
        """(dim,) Raises BadInput for a feature that cannot be asked so, or a text without a vector."""
        with self._busy:
            kept = self._texts.get((feature, text))
            if kept is None:
                kept = self._texts[feature, text] = self._encoder.text(feature, text)
                self.loaded.add(True)
                while len(self._texts) > KEPT:
                    self._texts.popitem(last=False)
            return kept

    def image(self, feature: str, image: str | Path | bytes) -> Float32:
        """(dim,) of the bytes of a picture; a path is none of a request's business."""
        assert isinstance(image, bytes)
        with self._busy:
            found = self._encoder.image(feature, image)
            self.loaded.add(False)
            return found
