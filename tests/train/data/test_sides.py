"""One side of the pairs and its table."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bind import modalities
from preprocess.source import Hints, Limits, Source
from train.data.cache import content_digest, table_name
from train.data.sides import Part, Ranks, Side
from train.trainer.schema import Augment, Cache


def test_another_revision_of_the_preprocessing_has_tables_of_its_own(tmp_path: Path) -> None:
    known = modalities.specs()
    config = modalities.spec("depth").config(size=16)

    def table_of(revision: int) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(modalities, "specs", lambda: known | {"depth": replace(known["depth"], revision=revision)})
            cache, cpu = Cache(folder=str(tmp_path)), torch.device("cpu")
            return Side(Part("depth", config), Augment(), cache, cpu, "float32", Limits())._table.folder.name

    assert table_of(1) == table_name("depth", {"modality": "depth", "config": asdict(config)})  # as it always was
    assert len({table_of(1), table_of(2), table_of(3)}) == 3


def test_an_item_s_vector_is_the_normalised_mean_of_its_views_after_the_tower(tmp_path: Path) -> None:
    """From a table of views, and from one of whole vectors; the items have different numbers of views."""
    config = modalities.spec("imu").config()
    rng = np.random.default_rng(0)
    hints = Hints(rate_hz=config.rate_hz)
    windows = {f"{s} s": rng.normal(size=(round(s * config.rate_hz), 6)).astype(np.float32) for s in (20, 7)}
    sources = [Source(values, name, hints) for name, values in windows.items()]
    of = {content_digest(source, Limits()): source for source in sources}
    matrix = torch.from_numpy(rng.normal(size=(int(np.prod(modalities.spec("imu").shape(config))), 8))).float()

    def encode(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(x.flatten(1) @ matrix, dim=1)

    def side(part: Part) -> Side:
        made = Side(part, Augment(), Cache(folder=str(tmp_path)), torch.device("cpu"), "float32", Limits())
        assert not made.fill(of, Ranks(), "reading")
        return made

    views = side(Part("imu", config))
    found = views.embed(list(of), encode)
    pooled = side(Part("imu", config, encode, 8, {"space": "x"}, pooled=True)).embed(list(of), None)
    each = [encode(torch.tensor(rows).float()) for rows in views.items(list(of), [0, 0])]
    assert len({len(rows) for rows in each}) == 2  # of several numbers of views
    expected = torch.nn.functional.normalize(torch.stack([rows.mean(0) for rows in each]), dim=1)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(pooled, expected, rtol=0, atol=2e-3)  # the other table holds views as float16
