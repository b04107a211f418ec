"""The loop: exact resume, signals, several ranks, losses that are not finite, and that it learns."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import bind
from bind import encoders
from bind.checkpoint import TABLE, CheckpointError, write_sums
from tests.train import scenes
from tests.train.conftest import BASE, MakeRun, table
from train.trainer import loop
from train.trainer import run as runs
from train.trainer.schema import Run

ROOT = Path(__file__).parents[3]
RECIPE = Path(runs.__file__).parents[1] / "runs" / "tiny.toml"


def state(run: Run) -> dict[str, torch.Tensor]:
    return load_file(Path(run.out) / loop.STATE)


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


class Crash(Exception):
    pass


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Any) -> None:
    """`act` happens in the middle of that step: after its gradients, before its update."""
    plain = loop._Trainer._average_gradients
    seen = []

    def average(self: loop._Trainer) -> None:
        plain(self)
        if self.progress.step == step and not seen:
            seen.append(step)
            act()

    monkeypatch.setattr(loop._Trainer, "_average_gradients", average)


def crash() -> None:
    raise Crash


FULL = {"ema_decay": 0.9, "pair": {"learn_temperature": True}}


@pytest.mark.parametrize("stop", ["crash", "SIGTERM"])
def test_resumed_run_has_identical_weights(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    whole, parts = make_run(tmp_path / "whole", **FULL), make_run(tmp_path / "parts", save_every=2, **FULL)
    assert loop.train(whole).reason == "finished"
    step = random.Random().randint(1, 10)  # any step will do
    if stop == "crash":
        at_step(monkeypatch, step, crash)
        with pytest.raises(Crash):
            loop.train(parts)
    else:
        at_step(monkeypatch, step, lambda: signal.raise_signal(signal.SIGTERM))
        first = loop.train(parts)
        assert (first.reason, first.step) == ("SIGTERM", step + 1)
    assert not torch.equal(*(next(iter(state(run).values())) for run in (whole, parts))), "the parts end too early"
    assert loop.train(parts).reason == "finished"
    assert_equal(state(whole), state(parts))
    logs = [
        [json.loads(line)["loss"] for line in (Path(run.out) / loop.LOG).read_text().splitlines()]
        for run in (whole, parts)
    ]
    assert logs[0] == logs[1]
    weights = [load_file(Path(run.out) / loop.MODEL / "depth.safetensors") for run in (whole, parts)]
    assert_equal(*weights)


def test_resume_without_the_optimizer_would_differ(make_run: MakeRun, tmp_path: Path) -> None:
    """The negative control of the test above: it can fail."""
    whole, parts = make_run(tmp_path / "whole"), make_run(tmp_path / "parts")
    loop.train(whole)
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 5, lambda: signal.raise_signal(signal.SIGINT))
        assert loop.train(parts).reason == "SIGINT"
    file = Path(parts.out) / loop.STATE
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    kept = {name: tensor for name, tensor in load_file(file).items() if not name.startswith("adam.")}
    save_file(kept, file, metadata)
    loop.train(parts)
    weights = [state(run)["weight.towers.depth.head.weight"] for run in (whole, parts)]
    assert not torch.equal(*weights)


CHILD = """
import sys
from train.trainer import loop, run
from train.__main__ import main
plain = loop._Trainer._average_gradients
def average(self):
    plain(self)
    if self.progress.step == 7:
        print("in step 7", flush=True)
        sys.stdin.readline()
loop._Trainer._average_gradients = average
sys.exit(main(sys.argv[1:]))
"""


def test_sigterm_to_the_command_saves_and_the_same_command_goes_on(data: Path, tmp_path: Path) -> None:
    file = data / "sigterm.toml"
    file.write_text(tomli_w.dumps(table(tmp_path / "parts")))
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(file)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdin
    while "in step 7" not in (line := process.stdout.readline()):
        assert line, "it ended before step 7"
    process.send_signal(signal.SIGTERM)
    process.stdin.write("\n")
    process.stdin.close()
    assert "SIGTERM after 8 steps" in process.stdout.read()
    process.stdout.close()
    assert process.wait() == 128 + signal.SIGTERM
    done = subprocess.run([sys.executable, "-m", "train", file], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "finished after 12 steps" in done.stdout
    whole = runs.parse(table(tmp_path / "whole"), data)
    loop.train(whole)
    assert_equal(state(whole), load_file(tmp_path / "parts" / loop.STATE))


def test_the_second_signal_ends_a_step(data: Path, tmp_path: Path) -> None:
    file = data / "twice.toml"
    file.write_text(tomli_w.dumps(table(tmp_path / "parts", save_every=3)))
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(file)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        while "in step 7" not in (line := process.stdout.readline()):
            assert line, "it ended before step 7"
        process.send_signal(signal.SIGINT)
        while "once more ends at once" not in (line := process.stdout.readline()):
            assert line, "the first signal ended it"
        process.send_signal(signal.SIGINT)  # the step waits for a line that never comes
        assert process.wait(60) == -signal.SIGINT
    done = subprocess.run([sys.executable, "-m", "train", file], cwd=ROOT, capture_output=True, text=True)
    assert "finished after 12 steps" in done.stdout, done.stderr


def test_a_moved_run_goes_on_and_may_log_otherwise(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    scenes.build(before, "train", range(16))
    settings = table(Path("out"), steps=6, save_every=2)
    whole = loop.train(runs.parse(table(tmp_path / "whole", steps=6), before))
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 4, crash)
        with pytest.raises(Crash):
            loop.train(runs.parse(settings, before))
    before.rename(after)
    settings["train"] |= {"log_every": 4, "save_every": 5}
    assert loop.train(runs.parse(settings, after)).step == whole.step == 6
    assert_equal(load_file(after / "out" / loop.STATE), load_file(tmp_path / "whole" / loop.STATE))
    # A manifest of other content is no moved one.
    scenes.build(after, "train", range(17))
    with pytest.raises(loop.TrainError, match="content of manifests"):
        loop.train(runs.parse(settings, after))


def test_a_state_from_before_goes_on(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "out")
    loop.train(run)
    file = tmp_path / "out" / loop.STATE
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    for digest in (json.loads(metadata["run"])["content of manifests"]["0 train.jsonl"], "other"):
        contents = {run.train.pairs[0].manifests[0]: digest}
        old = run.model_dump(mode="json") | {"content of manifests": contents}
        save_file(load_file(file), file, metadata | {"run": json.dumps(old)})
        if digest == "other":
            with pytest.raises(loop.TrainError, match="content of manifests"):
                loop.train(run)
        else:
            assert loop.train(run).reason == "finished"


def test_changed_run_file_is_refused_with_the_changed_keys(make_run: MakeRun, tmp_path: Path, data: Path) -> None:
    loop.train(make_run(tmp_path / "out"))
    with pytest.raises(loop.TrainError) as caught:
        loop.train(make_run(tmp_path / "out", learning_rate=0.5, pair={"temperature": 0.2}))
    assert "train.learning_rate: 0.001 -> 0.5" in str(caught.value)
    assert "train.pairs.0.temperature: 0.07 -> 0.2" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 3


def test_changed_manifest_is_refused(tmp_path: Path) -> None:
    settings = table(tmp_path / "out", steps=2)
    scenes.build(tmp_path, "train", range(14))
    loop.train(runs.parse(settings, tmp_path))
    scenes.build(tmp_path, "train", range(15))
    with pytest.raises(loop.TrainError, match=r"content of manifests.*train.jsonl: '\w+' -> '\w+'"):
        loop.train(runs.parse(settings, tmp_path))


def test_the_command_tells_faults_of_the_run_file_from_those_of_the_data(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from train.__main__ import main

    assert main([]) == 2
    file = data / "faulty.toml"
    file.write_text(tomli_w.dumps(table(tmp_path / "out", epochs=-1)))
    assert main([str(file)]) == 2
    file.write_text(tomli_w.dumps(table(tmp_path / "out", pair={"manifests": ["broken.jsonl"]})))
    (data / "broken.jsonl").write_text("no JSON")
    assert main([str(file)]) == 1
    told = capsys.readouterr().err
    assert "usage: " in told and "train.epochs" in told and "train: broken.jsonl:1: not JSON" in told
    assert "Traceback" not in told


def test_finished_run_is_not_trained_again(make_run: MakeRun, tmp_path: Path) -> None:
    first = loop.train(make_run(tmp_path / "out"))
    written = (tmp_path / "out" / loop.STATE).stat().st_mtime_ns
    assert loop.train(make_run(tmp_path / "out")) == first
    assert (tmp_path / "out" / loop.STATE).stat().st_mtime_ns == written


def test_tensorboard_shows_the_curves_of_the_log(make_run: MakeRun, tmp_path: Path, data: Path) -> None:
    """Also where a run was interrupted: the steps that come again are shown once."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = table(tmp_path / "out", save_every=5)
    settings["evaluate"] = {"manifests": ["test.jsonl"]}
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 8, crash)
        with pytest.raises(Crash):
            loop.train(runs.parse(settings, data))
    loop.train(runs.parse(settings, data))
    board = EventAccumulator(str(tmp_path / "out" / "tensorboard")).Reload()
    records = [json.loads(line) for line in (tmp_path / "out" / loop.LOG).read_text().splitlines()]
    for tag, key in (("loss/depth-image", "loss"), ("lr/depth-image", "lr"), ("mean/held out", "mean")):
        expected = [(record["step"], record[key]) for record in records if key in record]
        shown = [(event.step, event.value) for event in board.Scalars(tag)]
        assert shown == [(step, pytest.approx(value)) for step, value in expected], tag
    assert len(board.Scalars("loss/depth-image")) == 12
    assert len(board.Scalars("mean/held out")) == 4


def test_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "out", save_every=3)
    plain = loop._Trainer._batch

    def batch(self: loop._Trainer, step: int) -> loop.Batch:
        made = plain(self, step)
        if step == 7:
            made.sides[0][3] = torch.nan
        return made

    monkeypatch.setattr(loop._Trainer, "_batch", batch)
    with pytest.raises(loop.TrainError, match=r"step 7 \(depth-image, items .*the loss is nan.*last good checkpoint"):
        loop.train(run)
    kept = state(run)
    assert all(tensor.isfinite().all() for tensor in kept.values())
    assert kept["adam.step.towers.depth.head.weight"] == 6
    monkeypatch.undo()
    assert loop.train(run).reason == "finished"


def test_gradient_caching_gives_the_plain_weights(make_run: MakeRun, tmp_path: Path) -> None:
    whole, parts, other = (
        make_run(tmp_path / str(size), micro_batch=size, epochs=1, pair={"temperature": temperature})
        for size, temperature in ((0, 0.07), (5, 0.07), (4, 0.08))
    )
    for run in (whole, parts, other):
        loop.train(run)
    name = "weight.towers.depth.head.weight"
    torch.testing.assert_close(state(whole)[name], state(parts)[name], rtol=0, atol=1e-5)
    assert (state(whole)[name] - state(other)[name]).abs().max() > 1e-4


def test_autocast_has_nearly_the_plain_loss(tmp_path: Path, data: Path) -> None:
    settings = [table(tmp_path / "plain"), table(tmp_path / "other") | {"dtype": "bfloat16"}]
    plain, other = (loop.train(runs.parse(each, data)).loss for each in settings)
    assert plain is not None
    assert other == pytest.approx(plain, abs=0.05)
    assert other != plain  # it was in force


@pytest.mark.slow
def test_compiled_encoder_has_the_plain_loss(tmp_path: Path, data: Path) -> None:
    from torch._dynamo.utils import counters

    settings = [table(tmp_path / "plain"), table(tmp_path / "other") | {"compile": True}]
    counters.clear()
    plain, other = (loop.train(runs.parse(each, data)).loss for each in settings)
    assert counters["frames"]["ok"] > 0  # it was in force
    assert other == pytest.approx(plain, abs=1e-3)


def test_sigmoid_loss_learns_its_bias_and_scale(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "out", loss="sigmoid", pair={"learn_temperature": True, "temperature": 0.1})
    assert loop.train(run).reason == "finished"
    assert state(run)["weight.objectives.0.bias"] != -10
    assert "adam.exp_avg.objectives.0.scale.log_scale" in state(run)


def test_one_two_and_three_ranks_give_the_same_weights(data: Path, tmp_path: Path) -> None:
    def launch(ranks: int, name: str, temperature: float = 0.07) -> dict[str, torch.Tensor]:
        pair = {"temperature": temperature, "learn_temperature": True, "teacher": {"model": "small"}}
        file = data / f"{name}.toml"
        file.write_text(tomli_w.dumps(table(tmp_path / name, epochs=1, warmup_epochs=0, pair=pair)))
        command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m", "train", str(file)]
        if ranks == 1:
            loop.train(runs.read(file))
            return load_file(tmp_path / name / loop.STATE)
        environment = {"OMP_NUM_THREADS": "1", "PATH": ""}
        done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return load_file(tmp_path / name / loop.STATE)

    name = "weight.towers.depth.head.weight"
    one, two, three = (launch(ranks, f"ranks-{ranks}")[name] for ranks in (1, 2, 3))
    torch.testing.assert_close(one, two, rtol=0, atol=2e-5)
    torch.testing.assert_close(one, three, rtol=0, atol=2e-5)
    other = launch(1, "other", 0.08)[name]
    assert (one - other).abs().max() > 2e-4


def test_fewer_items_than_ranks_and_uneven_batches_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with pytest.raises(loop.TrainError, match="3 items are fewer than 4 ranks"):
        loop.Schedule(run, [3], 4)
    with pytest.raises(loop.TrainError, match="batch_size 12 is not a multiple of 5 ranks"):
        loop.Schedule(run, [40], 5)


def test_every_item_is_seen_once_an_epoch_and_pairs_by_their_weight(make_run: MakeRun, tmp_path: Path) -> None:
    plain = make_run(tmp_path, epochs=40)
    pair = plain.train.pairs[0]
    pairs = (pair, pair.model_copy(update={"weight": 3.0}))
    run = plain.model_copy(update={"train": plain.train.model_copy(update={"pairs": pairs})})
    schedule = loop.Schedule(run, [48, 48], 1)
    steps = [schedule.at(step) for step in range(schedule.steps)]
    share = sum(number for number, _, _ in steps) / len(steps)
    assert abs(share - 0.75) < 0.08
    seen = [sorted(row for number, turn, rows in steps if (number, turn) == (1, t) for row in rows) for t in range(5)]
    assert seen == [list(range(48))] * 5
    rates = [schedule.learning_rate(step) for step in range(schedule.steps)]
    assert max(rates) == rates[schedule.warmup - 1] == run.train.learning_rate
    assert rates[0] == run.train.learning_rate / schedule.warmup
    assert rates[-1] < 1e-6


def test_stops_early_and_keeps_the_best_model(make_run: MakeRun, tmp_path: Path, data: Path) -> None:
    settings = table(tmp_path / "out", epochs=50, learning_rate=1e-6, warmup_epochs=0)
    settings["evaluate"] = {"manifests": ["test.jsonl"], "patience": 2}
    result = loop.train(runs.parse(settings, data))
    assert result.reason == "early stop"
    assert result.step < 150
    assert result.recall is not None
    records = [json.loads(line) for line in (tmp_path / "out" / loop.LOG).read_text().splitlines()]
    means = [record["mean"] for record in records if "mean" in record]
    assert max(means) == result.recall
    assert means.index(result.recall) == len(means) - 3


def test_the_model_is_the_base_with_one_more_modality(make_run: MakeRun, tmp_path: Path, data: Path) -> None:
    result = loop.train(make_run(tmp_path / "out"))
    assert result.model
    model, base = bind.load(result.model), bind.load("small", modalities=BASE)
    assert model.modalities == (*base.modalities, "depth")
    assert model.description.trained == (("image", "text"), ("image", "depth"))
    assert model.space != base.space
    assert encoders.is_published(model.description.modalities["text"].encoder or {})
    assert not [name for name in load_file(result.model / "text.safetensors") if name.startswith("encoder")]
    picture = data / "media" / "0.png"
    # Not bit for bit: mapped weights may be aligned otherwise, and then take another kernel.
    np.testing.assert_allclose(model.embed([picture]).vectors, base.embed([picture]).vectors, atol=1e-6)
    assert model.embed([data / "media" / "0.depth.png"]).vectors.shape == (1, 384)


def thermal_on(base: Path, out: Path, data: Path) -> Run:
    """A run that binds a second sensor to a trained checkpoint; the depth files pass for thermal pictures."""
    lines = (data / "train.jsonl").read_text().replace('"depth"', '"thermal"').replace(', "unit": "mm"', "")
    (data / "thermal.jsonl").write_text(lines)
    pair = {"modality": "thermal", "manifests": ["thermal.jsonl"], "batch_size": 20}
    new = {"thermal": {"encoder": {"widths": [8, 16]}, "preprocess": {"size": 32}}}
    run = {"name": "second", "out": str(out), "base": {"model": str(base)}, "modalities": new}
    return runs.parse(run | {"train": {"epochs": 1, "pairs": [pair]}}, data)


def test_a_trained_checkpoint_is_a_base_for_the_next_sensor(make_run: MakeRun, tmp_path: Path, data: Path) -> None:
    first = loop.train(make_run(tmp_path / "first")).model
    assert first
    second = loop.train(thermal_on(first, tmp_path / "second", data)).model
    assert second
    model = bind.load(second)
    assert model.description.trained == (("image", "text"), ("image", "depth"), ("image", "thermal"))
    assert_equal(*(load_file(folder / "depth.safetensors") for folder in (first, second)))
    depth = data / "media" / "0.depth.png"
    np.testing.assert_allclose(model.embed([depth]).vectors, bind.load(first).embed([depth]).vectors, atol=1e-6)


def test_base_checkpoint_of_another_architecture_is_refused(make_run: MakeRun, tmp_path: Path, data: Path) -> None:
    made = loop.train(make_run(tmp_path / "out")).model
    assert made
    described = tomllib.loads((made / TABLE).read_text())
    described["modalities"]["depth"]["encoder"]["widths"] = [8, 24]
    (made / TABLE).write_text(tomli_w.dumps(described))
    run = thermal_on(made, tmp_path / "next", data)
    with pytest.raises(CheckpointError, match="the file is damaged"):
        loop.train(run)
    write_sums(made)
    with pytest.raises(CheckpointError, match="size mismatch"):
        loop.train(run)


def test_tiny_recipe_learns_from_pairs_and_not_from_shuffled_ones(tmp_path: Path) -> None:
    """Held-out recall (mean of @1, 5, 10, both ways; 100 scenes) is at least 0.25; chance is 0.053."""
    scenes.build(tmp_path, "held-out", range(10_000, 10_100))
    found = {}
    for name in ("paired", "shuffled"):
        scenes.build(tmp_path, "train", range(300), shuffled=name == "shuffled")
        recipe = tomllib.loads(RECIPE.read_text()) | {"out": name}
        found[name] = loop.train(runs.parse(recipe, tmp_path)).recall
    assert found["paired"] is not None
    assert found["shuffled"] is not None
    assert found["paired"] > 0.25
    assert found["shuffled"] < 0.12
