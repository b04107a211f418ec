"""Strong models by a short name, whether their weights are here, and how weights get here."""

from __future__ import annotations

import os
import shutil
import tempfile
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

from bind.cache import cache_folder
from bind.files import sha256

_FILE = Path(__file__).with_suffix(".toml")
"""The table of the short names."""


class Preset(BaseModel):
    """A row of `presets.toml`: `model` is what `bind.load` takes, the rest helps a person to choose."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    modalities: tuple[str, ...]
    dim: int | None = None
    license: str
    quality: str = ""
    parameters_m: float | None = None
    memory_gb: float | None = None
    strength: int = 0


@cache
def presets() -> dict[str, Preset]:
    """The short names, in the order of the file."""
    return TypeAdapter(dict[str, Preset]).validate_python(tomllib.loads(_FILE.read_text(encoding="utf-8")))


def kept(name: str) -> Path | None:
    """The file or folder of weights that `keep` has put aside for a short name; None for other names too."""
    if name not in presets():
        return None
    folder = _folder(name)
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return found[0] if len(found) == 1 else None


def keep(name: str, source: Path, check: Callable[[Path], object], digest: str | None = None) -> Path:
    """Copies weights from elsewhere for a preset -> where they are kept.

    Args:
        name: a name of `presets`.
        source: the file or the folder of the weights.
        check: is called with the copy before it counts, and raises where it is not what it should be.
        digest: the SHA-256 that a file must have.

    Raises:
        ValueError: an unknown name, no such file, another digest, or what `check` raises. Nothing is kept then.
        OSError: the copy could not be written.
    """
    if name not in presets():
        raise ValueError(f"no preset {name!r}; known: {', '.join(presets())}")
    if not source.exists():
        raise ValueError(f"{source}: there is no such file or folder")
    folder = _folder(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
    try:
        copy = aside / source.resolve().name
        if source.is_dir():
            if digest is not None:
                raise ValueError(f"{source}: is a folder, and --sha256 is for a file")
            shutil.copytree(source, copy)
        else:
            shutil.copyfile(source, copy)
            if digest is not None and (found := sha256(copy)) != digest.lower():
                raise ValueError(f"{source}: its SHA-256 is {found}, expected {digest.lower()}; it is another file")
        check(copy)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(aside, folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return folder / source.resolve().name


def is_here(name: str) -> bool:
    """Whether a preset's weights can be loaded without a network: they are kept, or lie in the hub's local cache."""
    model = presets()[name].model
    if kept(name) is not None:
        return True
    if model.startswith("clip-"):
        return _is_cached(model)
    if ":" not in model:
        return Path(model.replace("-", "_") + ".pth").is_file()
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(model.partition(":")[2].partition("#")[0].partition("@")[0], local_files_only=True)
    except Exception:  # each version of the hub's client has errors of its own
        return False
    return True


def advice(memory_gb: float) -> str | None:
    """The strongest preset of pictures and texts that fits twice into the memory that is free, or None."""
    fitting = [
        (preset.strength, name)
        for name, preset in presets().items()
        if preset.strength and preset.memory_gb and 2 * preset.memory_gb <= memory_gb
    ]
    return max(fitting)[1] if fitting else None


def free_memory_gb() -> float:
    """The memory of this machine that programs may still use; 0.0 where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) / 2**20
    except (OSError, StopIteration, ValueError):
        return 0.0


def _is_cached(model: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from open_clip.pretrained import get_pretrained_cfg

    name, _, tag = model.removeprefix("clip-").partition(":")
    repository, _, file = str(get_pretrained_cfg(name, tag).get("hf_hub", "")).partition("/")
    owner, _, rest = file.partition("/")
    files = [rest] if rest else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    return any(isinstance(try_to_load_from_cache(f"{repository}/{owner}", one), str) for one in files)


def _folder(name: str) -> Path:
    return cache_folder() / "models" / name
