"""Dynamic batching: what comes out, what is taken, and what happens to it when something goes wrong."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bind import modalities
from bind.model.model import BindModel
from preprocess.decoding.cores import available_cores
from preprocess.source import Limits, Plan, Segment, Source
from serve.engine import batching
from serve.engine.batching import Batcher
from serve.engine.jobs import Busy, EncodedSegment, ItemError, LateError
from serve.engine.metrics import Metrics
from tests.preprocess.readers.test_flir import radiometric
from tests.serve import tiny

LONG_S = 60.0


class Gate:
    """Holds the encoder until it is opened, and notes what it encodes."""

    def __init__(self, model: BindModel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()
        self.sizes: list[int] = []
        encode = model.encode_views

        def held(modality: str, x: Tensor) -> Tensor:
            self.reached.set()
            assert self.open.wait(LONG_S)
            self.sizes.append(len(x))
            return encode(modality, x)

        monkeypatch.setattr(model, "encode_views", held)


@pytest.fixture
def model() -> BindModel:
    return tiny.model()


@pytest.fixture
def batcher(model: BindModel) -> Iterator[Batcher]:
    made = Batcher(model, Metrics(), max_batch=8, max_waiting=40, limits=Limits())
    yield made
    made.close()


def text(words: str) -> tuple[Source, str | None]:
    return Source(words, "text"), "text"


def file(path: Path) -> tuple[Source, str | None]:
    return Source(path.read_bytes(), path.name), None


def hold(batcher: Batcher, gate: Gate) -> Future[list[EncodedSegment]]:
    """Brings the encoder to stand still with one text."""
    first = batcher.submit([text("first")], LONG_S)
    assert gate.reached.wait(LONG_S)
    return first


def test_many_callers_get_what_the_model_gives_each_of_them(batcher: Batcher, model: BindModel, tmp_path: Path) -> None:
    picture, sound = tiny.picture(tmp_path / "a.png", 1), tiny.sound(tmp_path / "a.wav", 440)
    film = tiny.clip(tmp_path / "a.mp4")
    long = "boats and trains " * 40  # several windows

    def ask(number: int) -> np.ndarray:
        asked = [text(f"text {number}"), file(picture), text(long), file(sound), file(film)]
        found: list[EncodedSegment] | None = None
        while found is None:
            try:
                found = batcher.submit(asked, LONG_S).result()
            except Busy:
                threading.Event().wait(0.01)
        assert [result.modality for result in found] == ["text", "image", "text", "audio", "video"]
        return np.stack([result.vector for result in found])

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(ask, range(32)))
    for number, vectors in enumerate(answers):
        expected = model.embed([f"text:text {number}", picture, f"text:{long}", sound, film])
        np.testing.assert_allclose(vectors, expected.vectors, atol=1e-5)


def test_what_waits_is_encoded_together(batcher: Batcher, model: BindModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_PASS_S", LONG_S)
    gate = Gate(model, monkeypatch)
    first = hold(batcher, gate)
    others = [batcher.submit([text(f"text {number}")], LONG_S) for number in range(20)]
    with batcher._changed:  # all of them are prepared
        assert batcher._changed.wait_for(lambda: len(batcher._ready) == 20, LONG_S)
    gate.open.set()
    wait([first, *others])
    assert gate.sizes == [1, 8, 8, 4]


def test_full_is_busy_and_takes_all_or_nothing(
    batcher: Batcher, model: BindModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(model, monkeypatch)
    first = hold(batcher, gate)
    some = batcher.submit([text(str(number)) for number in range(30)], LONG_S)
    with pytest.raises(Busy) as caught:
        batcher.submit([text(str(number)) for number in range(10)], LONG_S)
    assert caught.value.retry_after_s >= 1
    assert batcher.waiting == 31
    more = batcher.submit([text(str(number)) for number in range(9)], LONG_S)
    gate.open.set()
    wait([first, some, more])
    assert len(batcher.submit([text(str(number)) for number in range(40)], LONG_S).result()) == 40


def test_late_and_cancelled_work_is_not_done(
    batcher: Batcher, model: BindModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(model, monkeypatch)
    first = hold(batcher, gate)
    late = batcher.submit([text("late"), text("later")], 0.0)
    cancelled = batcher.submit([text("cancelled")], LONG_S)
    assert cancelled.cancel()
    last = batcher.submit([text("last")], LONG_S)
    gate.open.set()
    wait([first, last])
    with pytest.raises(LateError):
        late.result(LONG_S)
    assert sum(gate.sizes) == 2
    batcher.close()
    assert batcher.waiting == 0


def test_a_bad_item_ends_its_own_request_only(batcher: Batcher, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    good = batcher.submit([text("good"), file(tiny.picture(tmp_path / "good.png", 1))], LONG_S)
    mixed = batcher.submit([text("good"), file(tmp_path / "bad.png"), text("good")], LONG_S)
    foreign = batcher.submit([text("good"), (Source(b"", "x"), "smell")], LONG_S)
    assert len(good.result()) == 2
    for future, reason in ((mixed, "bad.png"), (foreign, "no modality 'smell'")):
        with pytest.raises(ItemError, match=reason) as caught:
            future.result()
        assert caught.value.index == 1


def test_an_encoder_that_fails_is_told_and_the_next_batch_works(
    batcher: Batcher, model: BindModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(model, "encode_views", lambda *_: torch.zeros(1)[3])
        with pytest.raises(IndexError):
            batcher.submit([text("x")], LONG_S).result()
    assert len(batcher.submit([text("x")], LONG_S).result()) == 1


def test_closing_finishes_what_was_taken(batcher: Batcher, model: BindModel, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(model, monkeypatch)
    taken = [hold(batcher, gate), *(batcher.submit([text(str(number))], LONG_S) for number in range(20))]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    with batcher._changed:
        assert batcher._changed.wait_for(lambda: batcher._closing, LONG_S)
    with pytest.raises(Busy, match="shutting down"):
        batcher.submit([text("too late")], LONG_S)
    gate.open.set()
    closing.join()
    assert all(len(future.result()) == 1 for future in taken)


def linger(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    """A decoder that is at it for a second and a half of its own time."""
    started = time.process_time()
    while time.process_time() - started < 1.5:
        pass
    return [Segment(np.zeros((1, 16, 16, 3), np.uint8))]


def test_words_do_not_wait_for_a_slow_decoder(batcher: Batcher, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = modalities.spec("image")
    monkeypatch.setitem(modalities.specs(), "image", dataclasses.replace(spec, read=linger))
    slow = batcher.submit([(Source(b"x", "x"), "image")], LONG_S)
    assert len(batcher.submit([text("quick")], LONG_S).result(LONG_S)) == 1
    assert not slow.done()
    assert len(slow.result(LONG_S)) == 1


def test_few_decoded_media_are_held_in_memory(
    model: BindModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(model, monkeypatch)
    picture = file(tiny.picture(tmp_path / "a.png", 1))
    batcher = Batcher(model, Metrics(), max_batch=2, max_waiting=100, limits=Limits())
    future = batcher.submit([picture] * 60, LONG_S)
    assert gate.reached.wait(LONG_S)
    room = 2 + available_cores()
    with batcher._changed:  # everything that may be decoded now is
        assert batcher._changed.wait_for(lambda: batcher._decoding >= room, LONG_S)
    assert len(batcher._decoder._waiting) >= 60 - 2 - room - available_cores()
    gate.open.set()
    assert len(future.result()) == 60
    batcher.close()


@pytest.mark.parametrize("known", [None, ["image"]])
def test_a_radiometric_jpeg_is_a_picture_for_a_model_without_thermal(known: list[str] | None) -> None:
    model = tiny.seven() if known is None else tiny.model(modalities=known)
    batcher = Batcher(model, Metrics(), max_batch=2, max_waiting=100, limits=Limits())
    try:
        content = radiometric(np.linspace(10, 40, 48 * 64).reshape(48, 64))
        (found,) = batcher.submit([(Source(content, "IMG_1.jpg"), None)], deadline_s=30).result(timeout=30)
    finally:
        batcher.close()
    assert found.modality == ("thermal" if known is None else "image")
