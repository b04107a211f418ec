"""Every model of the zoo with random weights, its trunks cut to one block so that all of them fit a small machine."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bind import zoo
from bind.description import Description
from bind.model import loading
from bind.model.model import BindModel


def shortened(description: Description, folder: Path) -> Description:
    """The same model (names, widths, shapes, heads), the trunks of its encoders one block deep."""
    tables = {}
    for name, table in description.modalities.items():
        encoder: dict[str, Any] | None = table.encoder
        if encoder and "depth" in encoder:
            encoder = encoder | {"depth": 1}
        if encoder and encoder["module"] == "openclip":
            encoder = encoder | {"model": _one_block(encoder["model"], folder)}
        tables[name] = table.model_copy(update={"encoder": encoder})
    return description.model_copy(update={"modalities": tables})


def _one_block(model: str, folder: Path) -> str:
    import open_clip

    config = copy.deepcopy(open_clip.get_model_config(model))
    config["vision_cfg"]["layers"] = config["text_cfg"]["layers"] = 1
    short = f"{model}-one-block"
    (folder / f"{short}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    return short


@pytest.fixture(scope="session", params=zoo.names())
def random_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BindModel:
    description = shortened(zoo.describe(request.param), tmp_path_factory.mktemp("configs"))
    return loading.random(description, "cpu", torch.float32)
