"""What a command's options say reaches the model and the index; bad values end before anything is made."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import typer
from typer.testing import CliRunner, Result

from bind import modalities, zoo
from bind.model.model import BindModel
from bind.options import LoadOptions
from serve import Client, Term
from serve.cli import commands as cli
from serve.cli import library_commands, model_commands, options, server_commands
from serve.client import ApiError
from serve.engine.settings import NOT_OPTIONS, Settings
from serve.library import library, live_index
from serve.library.library import Library
from serve.library.model_check import OtherModelError
from tests.serve import tiny
from tests.serve.live import live

REACHES = {"model": "named", "weights": "file.bin", "device": "cuda:1", "dtype": "bfloat16"}
"""Options of `LoadOptions`, and a value of each that is not its default."""


def commands() -> dict[str, inspect.Signature]:
    found = {}
    for command in cli.app.registered_commands:
        assert command.callback
        whole = inspect.signature(command.callback)
        own = [parameter for name, parameter in whole.parameters.items() if name != "context"]
        found[command.name or command.callback.__name__.replace("_", "-")] = whole.replace(parameters=own)
    return found


def hints(name: str) -> dict[str, Any]:
    callback = next(
        c.callback for c in cli.app.registered_commands if (c.name or c.callback.__name__) == name and c.callback
    )
    found = get_type_hints(callback, include_extras=True)
    found.pop("context", None)
    return found


def option_name(name: str, hint: Any) -> str | None:
    """`--device` of an annotated parameter; None for an argument."""
    for extra in get_args(hint)[1:] if get_origin(hint) is not None else ():
        if isinstance(extra, typer.models.ArgumentInfo):
            return None
        if isinstance(extra, typer.models.OptionInfo) and extra.param_decls:
            return str(extra.param_decls[0])
    return "--" + name.replace("_", "-")


class Asked(Exception):
    """A model was asked for: with what."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with something of each kind that commands take."""
    monkeypatch.chdir(tmp_path)
    tiny.picture(tmp_path / "media" / "a.png", 1)
    (tmp_path / "run.toml").write_text("")
    (tmp_path / "x.jsonl").write_text('{"manifest": 1, "name": "x", "root": ".", "license": "none"}\n')
    with Library.open(tmp_path / "library", tiny.model()) as opened:
        opened.index(tmp_path / "media")
    return tmp_path


def arguments(name: str, place: Path) -> list[str]:
    """The least that a command must be given."""
    given: list[str] = []
    for parameter, hint in hints(name).items():
        if parameter == "return":
            continue
        has_default = commands()[name].parameters[parameter].default is not inspect.Parameter.empty
        if has_default and parameter != "manifests":  # `eval` takes them or a suite
            continue
        values = {"library": "library", "folder": "media", "file": "copy.tar", "out": "v.npz", "run": "run.toml"}
        values |= {
            "manifests": "x.jsonl",
            "paths": "media",
            "query": "a dog",
            "model": "small",
            "kind": "x",
            "root": ".",
        }
        option = option_name(parameter, hint)
        given += [values.get(parameter, "x")] if option is None else [option, values.get(parameter, "x")]
    return given


def _print(*values: object, **options: Any) -> None:
    """As the command's own output, which takes names that are no UTF-8; that of the test runner does not."""
    print(*(str(value).encode("utf-8", "backslashreplace").decode() for value in values), **options)


@pytest.fixture(autouse=True)
def _any_name_can_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (library_commands, model_commands, options, server_commands):
        monkeypatch.setattr(module, "print", _print, raising=False)


def invoke(*parts: Any) -> Result:
    return CliRunner().invoke(cli.app, [str(part) for part in parts])


OPTIONS = [
    (name, parameter)
    for name, signature in commands().items()
    for parameter in signature.parameters
    if parameter in REACHES
]


@pytest.mark.parametrize(("name", "parameter"), OPTIONS, ids=lambda part: part)
def test_every_commands_options_reach_the_loader(
    name: str, parameter: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[LoadOptions] = []

    def load(model: Any, weights: Any, device: str, dtype: str, modalities: Any, trust: bool) -> BindModel:
        asked.append(LoadOptions(model, weights, device, dtype, modalities, trust))
        raise ValueError("seen")

    monkeypatch.setattr(zoo, "load", load)
    monkeypatch.setattr("bind.devices.check_device", lambda device: None)  # there is no GPU here
    if name == "check":  # it loads a model only for what is damaged
        monkeypatch.setattr("serve.library.check.check", lambda folder, repair, open_library: open_library())
    given = arguments(name, place)
    if name == "skipped":  # and this one only to try again what was skipped
        monkeypatch.setattr("serve.library.catalogue.Catalogue.skipped", lambda _: [("a.tar", "is a tar archive")])
        given.append("--retry")
    option = option_name(parameter, hints(name)[parameter])
    if option is None:  # an argument: `eval MODEL`
        given[0] = REACHES[parameter]
    else:
        given += [option, REACHES[parameter]]
    if name == "serve":
        given += ["--port", "0"]
    done = invoke(name, *given)
    assert done.exit_code == 2 and "seen" in done.output, done.output
    assert getattr(asked[0], parameter) == REACHES[parameter]
    if name in ("index", "search", "serve", "check") and parameter != "model":
        assert asked[0].model == "tiny-0"  # the library's own, without --model


def test_the_device_reaches_model_and_index(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices: dict[str, str] = {}

    class Index:
        def __init__(self, space: str, dim: int, factory: str, device: str) -> None:
            devices["index"] = device
            raise ValueError("seen")

    def load(model: Any, weights: Any, device: str, dtype: str, modalities: Any, trust: bool) -> BindModel:
        devices["model"] = device
        return tiny.model()

    monkeypatch.setattr(zoo, "load", load)
    monkeypatch.setattr("bind.devices.check_device", lambda device: None)
    monkeypatch.setattr(library, "Index", Index)
    monkeypatch.setattr(live_index, "Index", Index)
    for call in (
        lambda: Library.open(place / "new", None, device="cuda:1"),
        lambda: Library.open(place / "new", LoadOptions(device="cuda:1")),
    ):
        devices.clear()
        with pytest.raises(ValueError, match="seen"):
            call()
        assert devices == {"model": "cuda:1", "index": "cuda:1"}
    assert not (place / "new").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--dtype", "nonsense"], "dtype is 'nonsense', expected one of float32, bfloat16, float16"),
        (["--device", "cuda"], "no CUDA device"),
        (["--device", "cuda:1"], "no CUDA device"),
        (["--device", "cuda:-1"], "expected cpu, cuda, cuda:1"),
        (["--device", "tpu"], "expected cpu, cuda, cuda:1"),
        (["--device", ""], "expected cpu, cuda, cuda:1"),
        (["--weights", "nonsense"], "takes no weights"),
        (["--model", "nonsense"], "no model 'nonsense'"),
        (["--factory", "nonsense"], "cannot make 'nonsense'"),
        (["--factory", "CAGRA"], "runs on a GPU only"),
        (["--decode", "gpu"], "expected --device cuda beside it"),
    ],
    ids=" ".join,
)
def test_a_bad_value_makes_no_library(
    options: list[str], reason: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "load", _tiny_or_refused(zoo.load))
    for command in ("index", "serve", "search"):
        if command != "index" and ("--decode" in options or (command == "search" and "--factory" in options)):
            continue
        folder = place / "new" if command != "search" else place / "library"
        given = {"index": [place / "media"], "serve": ["--create", "--port", "0"], "search": ["a dog"]}[command]
        done = invoke(command, *given, "--library", folder, *options)
        assert done.exit_code == 2, (command, done.output)
        own = "no model 'tiny-0'" if command == "search" and "--weights" in options else reason
        assert own in done.output.replace("\n", " "), done.output
        assert not (place / "new").exists(), command
    done = invoke("index", place / "nothing", "--library", place / "new")
    assert done.exit_code == 2 and "there is no such folder" in done.output
    assert not (place / "new").exists()


BAD = {
    int: ["x", "-1", "0", "1.5", "", "99999999999999999999"],
    float: ["x", "nan", "-1", ""],
    Path: ["", "/no/such/place/at all", "/dev/null", "\udcff", "a" * 5000],
    str: ["", "nonsense", "'", "\udcff", "a" * 5000, "+", "-"],
}


def kind_of(hint: Any) -> Any:
    while get_origin(hint) is not None and get_origin(hint) is not Literal:
        inner = [part for part in get_args(hint) if part is not type(None)]
        hint = inner[0]
    return hint


def bad_values() -> Iterator[tuple[str, str]]:
    for name, signature in commands().items():
        for parameter in signature.parameters:
            yield name, parameter


@pytest.mark.attack
@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name not in NOT_OPTIONS])
def test_no_value_of_any_setting_ends_in_a_traceback(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "load", _tiny_or_refused(zoo.load))
    monkeypatch.setattr(server_commands, "_serve", lambda *_: None)
    flag = "--" + name.replace("_", "-")
    for value in ("nonsense", "-1", "0", "", "nan", "1e400", "9" * 400, "x" * 70_000):
        switch = Settings.model_fields[name].annotation is bool
        given = [flag if value == "0" else f"--no-{flag[2:]}"] if switch else [f"{flag}={value}"]
        if name != "port":
            given += ["--port", "0"]
        done = invoke("serve", "--library", "library", *given)
        assert done.exit_code in (0, 1, 2), (given, done.output)
        assert done.exception is None or isinstance(done.exception, SystemExit), (given, done.exception)


@pytest.mark.parametrize(("name", "parameter"), list(bad_values()), ids=lambda part: part)
def test_no_value_of_any_option_ends_in_a_traceback(
    name: str, parameter: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "load", _tiny_or_refused(zoo.load))
    monkeypatch.setattr(server_commands, "_serve", lambda *_: None)
    monkeypatch.setattr("serve.demo.demo.run", lambda *_: None)
    hint = hints(name)[parameter]
    kind = kind_of(hint)
    for value in BAD.get(kind, ["nonsense"] if get_origin(kind) is Literal else []):
        given = arguments(name, place)
        option = option_name(parameter, hint)
        if option is None:
            position = [p for p in hints(name) if option_name(p, hints(name)[p]) is None].index(parameter)
            given[position : position + 1] = [value]  # the last one may have a default
        else:
            if option in given:
                at = given.index(option)
                del given[at : at + 2]
            given.append(f"{option}={value}")
        if name == "serve" and parameter != "port":
            given += ["--port", "0"]
        done = invoke(name, *given)
        assert done.exception is None or isinstance(done.exception, SystemExit), (value, done.exception)
        assert done.exit_code in (0, 1, 2), (value, done.output)
        assert "Traceback" not in done.output, (value, done.output)


def _tiny_or_refused(load: Any) -> Any:
    """`bind.load`, with all that it refuses, and a small model in the end."""

    def loaded(
        name: Any = "small",
        weights: Any = None,
        device: str = "cpu",
        dtype: str = "float32",
        modalities: Any = None,
        trust: bool = False,
    ) -> Any:
        LoadOptions(name, weights, device, dtype, modalities).check()
        return (
            tiny.model()
            if name in ("small", "tiny-0") and weights is None
            else load(name, weights, device, dtype, modalities, trust)
        )

    return loaded


QUERIES: list[tuple[str, dict[str, Any]]] = [
    ("a dog", {}),
    ("a dog", {"k": 2}),
    ("a dog", {"want": ["image"]}),
    ("a dog", {"where": "size_bytes > 0"}),
    ("a dog", {"where": "folder = ''", "k": 1}),
    ("", {}),
    ("a dog", {"k": 0}),
    ("a dog", {"want": ["smell"]}),
    ("a dog", {"where": "size ! 3"}),
    ("a dog", {"where": "nothing = 1"}),
]


def test_command_line_client_and_library_give_the_same(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same hits, call by call, and where one refuses the others do."""
    monkeypatch.setattr(zoo, "load", _tiny_or_refused(zoo.load))
    for number in range(2, 6):
        tiny.picture(place / "media" / f"{number}.png", number)
    (place / "media" / "note.txt").write_text("a dog")
    with Library.open(place / "library", tiny.model()) as opened:
        opened.index(place / "media")
        with live(opened) as served, Client(served.address) as client:
            for query, options in QUERIES:
                found: dict[str, Any] = {}
                try:
                    hits = opened.search([cli_term(query)], **options)
                    found["library"] = [(hit.item_id, round(hit.score, 4), hit.keyword) for hit in hits]
                except ValueError:
                    found["library"] = "refused"
                try:
                    answered = client.search([Term(query)], **options)
                    found["client"] = [(hit.id, round(hit.score, 4), hit.keyword) for hit in answered]
                except ApiError as error:
                    found["client"] = "refused" if 400 <= error.status < 500 else str(error)
                except ValueError:
                    found["client"] = "refused"
                given = [f"--{key}={','.join(v) if isinstance(v, list) else v}" for key, v in options.items()]
                done = invoke(
                    "search", f"text:'{query}'" if query else "", "--library", place / "library", "--json", *given
                )
                if done.exit_code == 0:
                    rows = json.loads(done.stdout)
                    found["command"] = [(row["item_id"], round(row["score"], 4), row["keyword"]) for row in rows]
                else:
                    assert done.exit_code == 2
                    found["command"] = "refused"
                assert found["library"] == found["client"] == found["command"], (query, options, found)
            with pytest.raises(ApiError, match="404"):
                client.item(10**6)
            with pytest.raises(LookupError):
                opened.item(10**6)
            vectors = client.embed(["a dog", place / "media" / "a.png"])
            local = opened.model.embed(["text:a dog", place / "media" / "a.png"])
            assert vectors.space == local.space
            assert abs(vectors.vectors - local.vectors).max() < 1e-5


def cli_term(query: str) -> Any:
    from bind.query import Term as Terms

    return Terms("text", query)


def test_the_tutorials_decode_line_asks_for_the_gpu(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tutorial = (Path(__file__).parents[3] / "docs/pages/tutorials/gpu.md").read_text()
    (line,) = re.findall(r"`crossbind (index [^`]*--decode gpu)`", tutorial)
    seen: dict[str, Any] = {}

    def load(model: Any, weights: Any, device: str, dtype: str, modalities: Any, trust: bool) -> BindModel:
        seen["device"] = device
        return tiny.model()

    monkeypatch.setattr(zoo, "load", load)
    monkeypatch.setattr("bind.devices.check_device", lambda device: None)
    monkeypatch.setattr(LoadOptions, "index_device", "cpu")
    done = invoke(*line.replace("FOLDER", str(place / "media")).split(), "--library", place / "library")
    assert seen == {"device": "cuda"}
    assert "move it there" in done.output  # the tiny model stays on the CPU: the decoder asks for the GPU


def test_a_library_of_another_revision_says_which_and_what_to_do(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = modalities.specs()
    monkeypatch.setattr(modalities, "specs", lambda: known | {"image": replace(known["image"], revision=2)})
    with pytest.raises(OtherModelError, match=r"image: revision 1, now 2.*crossbind migrate"):
        Library.open(place / "library", tiny.model())
    monkeypatch.undo()
    Library.open(place / "library", tiny.model()).close()


def test_the_version_and_the_completion_of_shells() -> None:
    done = invoke("--version")
    assert done.exit_code == 0 and done.output == f"crossbind {metadata.version('crossbind')}\n"
    assert "--install-completion" in invoke("--help").output


def test_windows_is_refused_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit) as ended:
        cli.main()
    monkeypatch.undo()
    assert ended.value.code == 2 and "does not run on Windows" in capsys.readouterr().err
