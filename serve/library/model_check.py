"""The check that a library is opened with the model that it was made with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bind.modalities import revisions
from bind.space import SpaceError

if TYPE_CHECKING:
    from bind.model.model import BindModel


class OtherModelError(SpaceError):
    """A library was opened with a model of another space than the one it was made with."""

    def __init__(self, expected: str, got: str, advice: str = "") -> None:
        super().__init__(expected, got)
        self.advice = advice

    def __str__(self) -> str:
        return self.advice or super().__str__()

    def __reduce__(self) -> tuple[type[OtherModelError], tuple[str, str, str]]:  # type: ignore[override]
        return type(self), (self.expected, self.got, self.advice)


def check_space(folder: Path, facts: Mapping[str, Any], name: str, model: BindModel) -> None:
    """Raises OtherModelError where a library's facts name another space than a model's."""
    if facts["space"] != model.space:
        made, now = json.loads(facts.get("revisions", "{}")), revisions(model.modalities)
        anew = [name for name in now if now[name] != made.get(name, 1)]
        if facts["model"] == model.origin and anew:
            changed = ", ".join(f"{name}: revision {made.get(name, 1)}, now {now[name]}" for name in anew)
            raise OtherModelError(
                facts["space"],
                model.space,
                f"{folder}: this library was made with another revision of the preprocessing ({changed}): its "
                f"vectors and new ones cannot be compared; `crossbind migrate {folder} --model {name}` embeds its "
                "files again, or go on with the version of Crossbind that made it",
            )
        if facts["model"] == model.origin:
            clip = ""
            if str(facts["model"]).startswith("clip-"):
                clip = " (earlier versions gave every model of open_clip the picture settings of OpenAI's CLIP)"
            raise OtherModelError(
                facts["space"],
                model.space,
                f"{folder}: this library was made with {facts['model']!r} while its weights or settings were others"
                f"{clip}, so that its vectors and new ones cannot be compared; index your folders into a new library",
            )
        raise OtherModelError(
            facts["space"],
            model.space,
            f"{folder}: this library was made with model {facts['model']!r} (space {facts['space']!r}), not with "
            f"{name!r} (space {model.space!r}), and their vectors cannot be compared; open it with "
            f"model={facts['model']!r}, or index into a new library",
        )
