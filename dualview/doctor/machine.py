"""This machine: versions that fit each other, vector instructions, threads, memory maps, disk."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
from importlib import metadata
from pathlib import Path

from dualview.doctor import Finding

PARTS = (
    "dualview",
    "torch",
    "torchvision",
    "faiss-cpu",
    "lancedb",
    "pylance",
    "duckdb",
    "pyarrow",
    "numpy",
    "transformers",
    "sentence-transformers",
    "open-clip-torch",
    "timm",
)
FEW_FILES = 1024  # open files a process may have: a table of many fragments and its readers need more
LITTLE_DISK = 2e9  # bytes
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "ceph", "glusterfs", "lustre")


def examine(folder: Path) -> list[Finding]:
    """folder: on whose disk the store lies, or would."""
    return [*_versions(), _instructions(), *_threads(), _accelerator(), _open_files(), *_disk(folder)]


def _versions() -> list[Finding]:
    there, gone = [], []
    for name in PARTS:
        try:
            there.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            gone.append(name)
    found = [Finding("versions", "ok", f"Python {platform.python_version()}, {', '.join(there)}")]
    if gone:
        found.append(
            Finding(
                "versions",
                "problem",
                f"not installed: {', '.join(gone)}",
                f"{sys.executable} -m pip install dualview",
            )
        )
    return found + _pair()


def _pair() -> list[Finding]:
    """torch and torchvision are built for each other; of another pair, transformers and open_clip do not import."""
    try:
        import torch  # noqa: F401
        import torchvision  # noqa: F401
    except Exception as error:  # an operator that is missing is a RuntimeError, a library an OSError
        remedy = "install both anew, as a pair: pip install --upgrade torch torchvision"
        return [Finding("torch", "problem", f"torch with torchvision does not load: {error}", remedy)]
    return []


def _instructions() -> Finding:
    import faiss

    built = {word for word in faiss.get_compile_options().split() if word.startswith(("AVX", "NEON", "SVE"))}
    if built or platform.machine() not in ("x86_64", "AMD64"):
        return Finding("instructions", "ok", f"FAISS uses {', '.join(sorted(built)) or platform.machine()}")
    return Finding(
        "instructions",
        "note",
        "FAISS uses no AVX2 here, so that searching is several times slower",
        "run on a processor with AVX2; in a virtual machine, pass the host's processor through",
    )


def _threads() -> list[Finding]:
    import faiss
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    own = f"torch {torch.get_num_threads()}, FAISS {faiss.omp_get_max_threads()} threads on {cores} cores"
    found = [Finding("threads", "ok", own)]
    if max(torch.get_num_threads(), faiss.omp_get_max_threads()) > cores:
        found = [
            Finding("threads", "note", f"more threads than cores: {own}", f"export OMP_NUM_THREADS={cores}")
        ]
    libraries = _openmp()
    if len(libraries) > 1 and os.environ.get("OMP_WAIT_POLICY", "").lower() != "passive":
        found.append(
            Finding(
                "threads",
                "note",
                f"{len(libraries)} OpenMP libraries are loaded ({', '.join(sorted(libraries))}); waiting threads of "
                "one take time from the other, ten times as long on a busy machine",
                "before Python starts: export OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0 (the command line sets both)",
            )
        )
    return found


def _openmp() -> set[str]:
    """File names of the OpenMP libraries in this process; empty where the system does not tell."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return set()
    files = {line.split()[-1].rsplit("/", 1)[-1] for line in maps.read_text().splitlines() if "/" in line}
    return {name for name in files if name.startswith(("libgomp", "libomp", "libiomp"))}


def _accelerator() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("device", "ok", f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
    if torch.backends.mps.is_available():
        return Finding("device", "ok", "Apple GPU (mps)")
    return Finding(
        "device", "ok", f"no GPU; on the processor torch uses {torch.backends.cpu.get_cpu_capability()}"
    )


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft in (resource.RLIM_INFINITY, -1) or soft >= FEW_FILES:
        return Finding("open files", "ok", f"a process may have {'any number' if soft < 0 else f'{soft:,}'}")
    can = "raise it with root's help" if 0 < hard < FEW_FILES else f"ulimit -n {FEW_FILES * 4}"
    return Finding("open files", "note", f"a process may have {soft:,}; large tables need more", can)


def _disk(folder: Path) -> list[Finding]:
    free = shutil.disk_usage(folder).free
    kind = _file_system(folder)
    found = [
        Finding("disk", "ok", f"{free / 1e9:,.1f} GB free for {folder}" + (f" ({kind})" if kind else ""))
    ]
    if free < LITTLE_DISK:
        remedy = "free some space: a write that does not fit is refused, what is there stays whole"
        found = [Finding("disk", "problem", f"{free / 1e9:,.1f} GB free for {folder}", remedy)]
    if kind in NETWORK:
        found.append(
            Finding(
                "disk",
                "problem",
                f"{folder} lies on a network file system ({kind}): the writer's lock may not hold there",
                "keep the store on a local disk",
            )
        )
    return found


def _file_system(folder: Path) -> str:
    """Its type, by the longest mount point above `folder`; "" where the system does not tell."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return ""
    above = {str(folder), *map(str, folder.parents)}
    listed = [line.split() for line in mounts.read_text().splitlines()]
    fitting = [(len(place), kind) for _, place, kind, *_ in listed if place in above]
    return max(fitting)[1] if fitting else ""
