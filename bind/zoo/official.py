"""The official ImageBind checkpoint, converted once to a checkpoint folder of Crossbind."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from bind import checkpoint
from bind.cache import cache_folder
from bind.description import Description
from bind.encoders import imagebind
from bind.files import SUMS


def converted(pth: Path, description: Description) -> Path:
    """An official `.pth` -> its checkpoint folder, which is converted once and then found in the cache.

    Raises ValueError where the file is missing or is not the checkpoint of these towers.
    """
    if not pth.is_file():
        raise ValueError(
            f"{pth}: no such file; {description.name} needs weights=PATH of the official checkpoint "
            f"({description.about}), or weights='random'"
        )
    # The file has 4.5 GB, so its path, size and time identify it without reading it.
    status = pth.stat()
    identity = f"{pth.resolve()} {status.st_size} {status.st_mtime_ns} {description.space({})}"
    folder = cache_folder() / f"{description.name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    if (folder / SUMS).is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".converting-", dir=folder.parent))
    try:
        tables = {name: table.encoder for name, table in description.modalities.items() if table.encoder}
        files = {table["modality"]: aside / f"{name}.safetensors" for name, table in tables.items()}
        imagebind.convert(pth, files, {table["modality"]: table for table in tables.values()})
        description.write(aside / checkpoint.TABLE)
        checkpoint.write_sums(aside)
        checkpoint.replace_folder(aside, folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return folder
