"""What the documentation says of the API is run against a server, word for word."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from serve.demo.samples import EVERYDAY
from serve.library.library import Library
from tests.serve.load import served

PAGE = Path(__file__).parents[2] / "docs/pages/reference/http.md"
ADDRESS = "http://127.0.0.1:8000"


def test_the_examples_of_the_api_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    section = re.search(r"<!-- api:.*?-->(.*?)<!-- /api -->", PAGE.read_text(), re.DOTALL)
    assert section, "http.md has no part between <!-- api: --> and <!-- /api -->"
    assert ADDRESS in section[1]
    media = tmp_path / "media"
    media.mkdir()
    for sample in EVERYDAY[:3]:
        shutil.copyfile(sample.path, media / sample.path.name)
    shutil.copyfile(EVERYDAY[0].path, tmp_path / "dog.jpg")
    with Library.open(tmp_path / "library", "small") as library:
        library.index(media)
    monkeypatch.chdir(tmp_path)
    with served(tmp_path / "library") as (host, port, _):
        told = section[1].replace(ADDRESS, f"http://{host}:{port}")
        (shell,) = re.findall(r"```bash\n(.*?)```", told, re.DOTALL)
        answers = [
            json.loads(subprocess.run(line, shell=True, check=True, capture_output=True).stdout)
            for line in shell.strip().splitlines()
        ]
        assert all("data" in answer for answer in answers), answers
        picture, words = (row["embedding"] for row in answers[0]["data"])
        assert len(picture) == len(words) and answers[0]["model"] == "small"
        assert len(answers[1]["data"]) == 3
        assert {row["modality"] for row in answers[2]["data"]} == {"image"}
        (added,) = answers[3]["data"]
        assert added["metadata"]["caption"] == "our dog"
        scripts = re.findall(r"```python\n(.*?)```", told, re.DOTALL)
        assert [("OpenAI" in script, "Client(" in script) for script in scripts] == [(True, False), (False, True)]
        for script in scripts:
            exec(compile(script, "http.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == str(len(picture))
    assert len(printed) == 4, "the three pictures of the folder"
