"""The examples of docs/tables.md run as they stand, one after the other, and its options are those of the shell."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from gpunet.cli.main import main
from gpunet.cli.options import add_table
from tests.helpers.checkout import ROOT

PAGE = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore::gpunet.estimators.stopping.NotConvergedWarning")
def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for language, block in re.findall(r"```(python|sh)\n(.*?)```", PAGE, re.DOTALL):
        if language == "python":
            exec(block, names)
            continue
        for line in block.splitlines():
            command, *arguments = shlex.split(line)
            assert (command, main(arguments)) == ("gpunet", 0), capsys.readouterr().err
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 401


def test_the_options_are_those_of_the_shell() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    add_table(parser)
    options = {flag for action in parser._actions for flag in action.option_strings}
    assert set(re.findall(r"^\| `(--[a-z-]+)", PAGE, re.MULTILINE)) == options | {"--categorical", "--missing"}
