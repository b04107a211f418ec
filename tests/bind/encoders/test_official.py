"""The official ImageBind file, as a person would load it: by its path."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import bind
from bind import zoo
from bind.description import Description
from bind.encoders import imagebind
from bind.model import loading
from bind.model.model import BindModel
from tests.bind.conftest import shortened


def official(model: BindModel) -> dict[str, Tensor]:
    """Our model -> the state dict of the official file, with the buffers it has besides weights."""
    state: dict[str, Tensor] = {}
    for name, table in model.description.modalities.items():
        if table.encoder is None:
            continue
        kind = table.encoder["modality"]
        ours = model.tower(name).state_dict()
        for theirs, key in imagebind._names(kind, table.encoder["depth"]).items():
            state[theirs] = ours[key].flatten(1) if theirs.endswith("imu_stem.proj.weight") else ours[key]
        state[f"modality_postprocessors.{kind}.1.log_logit_scale"] = torch.zeros(())
    state["modality_preprocessors.text.mask"] = torch.zeros(77, 77)
    return state


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> Description:
    return shortened(zoo.describe("imagebind-huge"), tmp_path_factory.mktemp("configs"))


@pytest.fixture
def short_zoo(description: Description, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(zoo, "describe", lambda name: description)
    monkeypatch.setenv("CROSSBIND_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("short_zoo")
def test_is_converted_once_and_loads_in_parts(description: Description, tmp_path: Path) -> None:
    original = loading.random(description, "cpu", torch.float32)
    pth = tmp_path / "imagebind_huge.pth"
    torch.save(official(original), pth)
    audio = bind.load("imagebind-huge", weights=pth, modalities=["audio"])
    (folder,) = (tmp_path / "cache").iterdir()
    made = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    whole = bind.load("imagebind-huge", weights=str(pth))
    assert made == {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert audio.modalities == ("audio",)
    assert set(whole.modalities) == set(description.modalities)
    assert audio.space == whole.space
    x = torch.randn(1, 3, 1, 128, 204)
    torch.testing.assert_close(audio.encode("audio", x), original.encode("audio", x), rtol=0, atol=1e-6)
    words = torch.randint(1, 40000, (1, 1, 77))
    torch.testing.assert_close(whole.encode("text", words), original.encode("text", words), rtol=0, atol=1e-6)
    motion = torch.randn(1, 1, 6, 2000)
    torch.testing.assert_close(whole.encode("imu", motion), original.encode("imu", motion), rtol=0, atol=1e-6)


@pytest.mark.usefixtures("short_zoo")
def test_other_files_are_refused_and_leave_nothing(description: Description, tmp_path: Path) -> None:
    import pickle

    pth = tmp_path / "x.pth"
    state = official(loading.random(description, "cpu", torch.float32))
    state.pop("modality_heads.audio.2.weight")
    torch.save(state, pth)
    with pytest.raises(ValueError, match=r"modality_heads\.audio\.2\.weight"):
        bind.load("imagebind-huge", weights=pth)
    for content in (b"", b"not a checkpoint", pickle.dumps(print), pth.read_bytes()[:100_000]):
        pth.write_bytes(content)
        with pytest.raises(ValueError):
            bind.load("imagebind-huge", weights=pth)
    assert not list((tmp_path / "cache").iterdir())


_LOAD_AUDIO = """
import json, sys
from pathlib import Path
import bind.zoo

def memory():
    lines = Path("/proc/self/status").read_text().splitlines()
    status = {line.split(":")[0]: line.split()[1] for line in lines if line.endswith(" kB")}
    return {key: int(status[key]) // 1024 for key in ("VmHWM", "RssAnon")}

before = memory()
model = bind.zoo.load("imagebind-huge", weights=sys.argv[1], modalities=["audio"])
print(json.dumps({"before": before, "after": memory(), "modalities": model.modalities}))
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_audio_of_the_full_checkpoint_loads_in_a_gigabyte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MiB. The first call converts, through a mapped file: its anonymous memory counts, mapped pages are the kernel's
    to drop. The second finds the converted file and stays below 1 GB in all."""
    monkeypatch.setenv("CROSSBIND_CACHE", str(tmp_path / "cache"))
    pth = tmp_path / "imagebind_huge.pth"
    torch.save(official(bind.load("imagebind-huge", weights="random")), pth)
    assert pth.stat().st_size > 4.7e9
    first, second = (
        json.loads(subprocess.check_output([sys.executable, "-c", _LOAD_AUDIO, pth], text=True)) for _ in range(2)
    )
    print(first, second)
    assert first["after"]["RssAnon"] < 1000
    assert second["after"]["VmHWM"] < 1000
