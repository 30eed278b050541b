"""Where weights come from: a hub id becomes a commit and a folder in the hub's cache, a local folder becomes its hash.

Two decisions. Whatever is loaded is loaded from a folder, at one known revision: a hub id is first laid out as a
snapshot. And a folder is hashed once; after that its hash is known by name, size and time of its files (kept in
STORE/cache/models.json, which may be deleted at any time).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.errors import ModelUnavailable
from featurestore.files import canonical_json, read_json, sha256_folder, sha256_text, write_json

if TYPE_CHECKING:
    from featurestore.recipe import ModelRef

CACHE = "models.json"
PREFIX = "local-dir:"
SECONDS = 10  # how long the hub may take to answer what a name stands for
SMALL = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")
OTHER_FORMATS = (
    "onnx",
    "openvino",
    "coreml",
    "flax",
    "tf",
    "gguf",
)  # folders of the same weights for other engines


@dataclass(frozen=True)
class Weights:
    """Which files of a model are needed: in each of its folders, the first pattern that matches wins."""

    patterns: tuple[str, ...]

    def pick(self, files: Sequence[str]) -> list[str]:
        """The files to fetch; none where there are no weights in a form we load (safetensors, or weights_only)."""
        folders: dict[str, list[str]] = {}
        for name in files:
            folder, _, file = name.rpartition("/")
            if not any(part.startswith(".") or part in OTHER_FORMATS for part in folder.split("/") if part):
                folders.setdefault(folder, []).append(file)
        chosen: list[str] = []
        weights = 0
        for folder, names in folders.items():
            wanted: list[str] = []
            for pattern in self.patterns:
                wanted = [n for n in names if fnmatch(n, pattern)]
                if wanted:
                    break
            weights += len(wanted)
            small = [n for n in names if n not in wanted and any(fnmatch(n, p) for p in SMALL)]
            chosen += [f"{folder}/{n}" if folder else n for n in (*wanted, *small)]
        return sorted(chosen) if weights else []

    def complete(self, folder: Path) -> bool:
        """Whether the folder holds weights, and every part that an index of parts names."""
        there = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
        chosen = self.pick(there)
        for name in chosen:
            if name.endswith(".index.json"):
                parts = set(
                    json.loads((folder / name).read_text(encoding="utf-8")).get("weight_map", {}).values()
                )
                if not all((folder / name).with_name(part).is_file() for part in parts):
                    return False
        return bool(chosen)


TRANSFORMERS = Weights(
    ("model.safetensors", "model-*.safetensors", "pytorch_model.bin", "pytorch_model-*.bin")
)
OPEN_CLIP = Weights(
    (
        "open_clip_model.safetensors",
        "open_clip_pytorch_model.safetensors",
        "open_clip_pytorch_model.bin",
        "model.safetensors",
        "pytorch_model.bin",
        "*.safetensors",
        "*.bin",
        "*.pth",
    )
)
TIMM = Weights(("model.safetensors", "pytorch_model.bin", "*.safetensors", "*.bin", "*.pth"))


@dataclass(frozen=True)
class Found:
    """A model that is there: what the recipe says of it, and the folder it loads from."""

    ref: ModelRef
    folder: Path


class Models:
    """Finds models for one store. `root`: the store's folder, which relative paths in features.toml start from.

    read_only: nothing is written, neither the hashes nor what the hub would have to send.
    """

    def __init__(self, root: str | Path, *, read_only: bool = False) -> None:
        self.root = Path(root)
        self.read_only = read_only
        self._cache = self.root / "cache" / CACHE
        self._hashed: dict[str, Any] = {}  # what read_only keeps from the cache

    def find(self, spec: str, weights: Weights) -> Found:
        """Resolve what a definition names. A folder is hashed, a hub id becomes its newest commit.

        Raises ModelUnavailable where neither the hub nor its cache nor a folder has the model.
        """
        from featurestore.recipe import ModelRef

        local = self.local(spec)
        if local is not None:
            if not local.is_dir():
                raise ModelUnavailable(
                    f"the model folder {local} is not there",
                    remedy="correct the path in features.toml, or put the folder back",
                )
            if not weights.complete(local):
                raise ModelUnavailable(
                    f"the model folder {local} holds no weights (looked for {', '.join(weights.patterns)})",
                    remedy="point model at a folder that has config and weights; weights are never made up",
                )
            return Found(ModelRef(id=local.name, revision=None, folder_sha256=self.hash(local)), local)
        commit, folder = self._snapshot(spec, None, weights)
        return Found(ModelRef(id=spec, revision=commit, folder_sha256=None), folder)

    def open(self, ref: ModelRef, weights: Weights, hint: str | None = None) -> Path:
        """The folder of exactly the model that a recipe names.

        hint: the definition's `model`, tried first for a local folder. Raises ModelUnavailable where it is gone or
        holds other weights now.
        """
        if ref.folder_sha256 is None:
            return self._snapshot(ref.id, ref.revision, weights)[1]
        tried: list[str] = []
        places = [hint] if hint is not None else []
        places += [path for path, entry in self._read().items() if entry.get("sha256") == ref.folder_sha256]
        for place in places:
            local = self.local(place)
            if local is None or str(local) in tried:
                continue
            tried.append(str(local))
            if local.is_dir() and self.hash(local) == ref.folder_sha256:
                return local
        raise ModelUnavailable(
            f"the model folder '{ref.id}' (sha256 {ref.folder_sha256[:12]}) is gone or holds other weights now; "
            f"looked in {', '.join(tried) or 'no place'}",
            remedy='put the folder back, or set model = "path/to/folder" in features.toml',
        )

    def unchanged(self, spec: str, ref: ModelRef) -> bool:
        """Whether `ref` is still what `spec` stands for, from names, sizes and times of files alone.

        A folder that is gone counts as unchanged: what was computed with it stays valid, and whoever needs the weights
        is told. A hub id never changes by itself: its commit was pinned when it was resolved.
        """
        if ref.folder_sha256 is None:
            return True
        local = self.local(spec)
        if local is None or not local.is_dir():
            return True
        return self.hash(local) == ref.folder_sha256

    def reach(self, spec: str, revision: str | None = None) -> str:
        """Where a folder or hub repository can be had from right now, in words. Raises ModelUnavailable.

        The hub is asked only for what neither a folder nor its cache on this machine has; nothing is fetched.
        """
        from huggingface_hub import HfApi, snapshot_download

        local = self.local(spec)
        if local is not None:
            if not local.is_dir():
                raise ModelUnavailable(
                    f"the model folder {local} is not there",
                    remedy="correct the path, or put the folder back",
                )
            return f"folder {local}"
        with suppress(Exception):  # not in the cache, or no valid name
            snapshot_download(spec, revision=revision, local_files_only=True)
            return "the hub's cache on this machine"
        try:
            HfApi().model_info(spec, revision=revision, timeout=SECONDS)
        except Exception as error:  # whatever the network stack raises
            raise ModelUnavailable(
                f"'{spec}' is not in the hub's cache here, and the hub said {type(error).__name__} "
                f"({_first_line(error)})",
                remedy=f"on a machine with network: hf download {spec} --local-dir FOLDER; bring FOLDER here and set "
                'model = "path/to/FOLDER" in features.toml',
            ) from error
        return "the model hub"

    def local(self, spec: str) -> Path | None:
        """The folder that `spec` names, or None for a hub id. Relative folders start from the store's folder."""
        path = Path(spec.removeprefix(PREFIX)).expanduser()
        absolute = path if path.is_absolute() else self.root / path
        marked = path.is_absolute() or spec.startswith((PREFIX, "./", "../", "~"))
        return absolute if marked or absolute.is_dir() else None

    def hash(self, folder: Path) -> str:
        """sha256 of a folder's content, read only when name, size or time of a file changed."""
        folder = folder.resolve()
        stamp = _stamp(folder)
        entry = self._read().get(str(folder))
        if entry is not None and entry.get("stamp") == stamp:
            return str(entry["sha256"])
        digest = sha256_folder(folder)
        self._hashed[str(folder)] = {"stamp": stamp, "sha256": digest}
        if self.read_only:
            return digest
        entries = self._read()
        with suppress(OSError):  # a store that may only be read still hashes, each time
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._cache, entries)
        return digest

    def _read(self) -> dict[str, Any]:
        try:
            entries = read_json(self._cache)
        except (OSError, ValueError):
            entries = {}
        return (entries if isinstance(entries, dict) else {}) | self._hashed

    def _snapshot(self, name: str, revision: str | None, weights: Weights) -> tuple[str, Path]:
        """(commit, folder) of a hub id: a pinned revision from the cache if it is there whole, else from the hub."""
        if revision is not None:
            cached = _cached(name, revision, weights)
            if cached is not None:
                return cached
        if self.read_only:
            return self._without_hub(name, weights)
        try:
            return _fetch(name, revision, weights)
        except ModelUnavailable:
            raise
        except Exception as error:  # whatever the network stack raises
            cached = _cached(name, revision, weights)
            if cached is not None:
                return cached
            at = f" at revision {revision[:12]}" if revision else ""
            raise ModelUnavailable(
                f"model '{name}'{at} could not be had: the hub said {type(error).__name__} "
                f"({_first_line(error)}), it is not in the hub's cache here, and there is no folder {self.root / name}",
                remedy=f"on a machine with network: hf download {name} --local-dir FOLDER; bring FOLDER here and set "
                'model = "path/to/FOLDER" in features.toml',
            ) from error

    def _without_hub(self, name: str, weights: Weights) -> tuple[str, Path]:
        cached = _cached(name, None, weights)
        if cached is None:
            raise ModelUnavailable(
                f"model '{name}' is not on this machine yet", remedy="dualview materialize fetches it"
            )
        return cached


@contextmanager
def loading(folder: str | Path) -> Iterator[None]:
    """What a library says of a folder that it cannot load becomes ModelUnavailable; a full memory stays what it is."""
    try:
        yield
    except (ModelUnavailable, MemoryError):
        raise
    except Exception as error:  # libraries say "not my kind of folder" with every kind of exception
        import torch

        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ModelUnavailable(
            f"the model in {folder} does not load: {type(error).__name__} ({_first_line(error)})",
            remedy="check that the folder is whole and of this encoder's kind; a model's own code is never run",
        ) from error


@contextmanager
def no_bars() -> Iterator[None]:
    """The transformers library loads without drawing progress bars of its own."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            logging.enable_progress_bar()


def _fetch(name: str, revision: str | None, weights: Weights) -> tuple[str, Path]:
    from huggingface_hub import HfApi, snapshot_download

    info = HfApi().model_info(name, revision=revision, timeout=SECONDS)
    files = weights.pick([sibling.rfilename for sibling in info.siblings or []])
    commit = info.sha
    if not files or commit is None:
        raise ModelUnavailable(
            f"the hub has '{name}', but no weights in a form that is loaded here ({', '.join(weights.patterns)})",
            remedy='choose another model, or convert it and set model = "path/to/folder"',
        )
    return commit, Path(snapshot_download(name, revision=commit, allow_patterns=files))


def _cached(name: str, revision: str | None, weights: Weights) -> tuple[str, Path] | None:
    """What the hub's cache on this machine holds of a model, if it is whole; without a revision, of main."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except Exception:  # not in the cache, or no valid name: the caller says what was tried
        return None
    return (folder.name, folder) if weights.complete(folder) else None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else "no reason given"


def _stamp(folder: Path) -> str:
    """Hash of the names, sizes and times of a folder's files."""
    facts = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder)
        if not any(part.startswith(".") for part in name.parts):
            state = path.stat()
            facts.append([name.as_posix(), state.st_size, state.st_mtime_ns])
    return sha256_text(canonical_json(facts))
