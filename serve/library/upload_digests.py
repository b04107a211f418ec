"""Digests of uploads, which name their folders and are computed from their content."""

from __future__ import annotations

import hashlib

from bind.owned import OwnedFolder


def folder_name_of(place: OwnedFolder) -> str:
    """The name that the folder of an upload should have (see `serve.library.uploads`); '' for another folder."""
    try:
        names = sorted(place.names(), key=len)
        if not names or names[1:] not in ([], [f"{names[0]}.json"]):
            return ""
        sidecar = b""
        if names[1:]:
            with place.open(names[1]) as file:
                sidecar = file.read()
        return folder_digest(place, names[0], sidecar)
    except OSError:  # the file was deleted in the meantime, or cannot be read
        return ""


def folder_digest(place: OwnedFolder, name: str, sidecar: bytes) -> str:
    """The name of a folder that holds this file with this sidecar (`b""` for none)."""
    digest = hashlib.sha256(name.encode() + b"\0" + sidecar + b"\0")
    with place.open(name) as content:
        while block := content.read(2**20):
            digest.update(block)
    return digest.hexdigest()[:32]
