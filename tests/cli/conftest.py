"""Commands as a user types them."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from hf_bias_patch.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run one command in this process: exit code, stdout, stderr."""

    def command(*arguments: object) -> tuple[int, str, str]:
        from hf_bias_patch.cli import console

        console.stdout.cache_clear()
        console.stderr.cache_clear()
        monkeypatch.setattr(sys, "argv", ["hf-bias-patch", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
            raise SystemExit(0)
        captured = capsys.readouterr()
        return int(exit_.value.code or 0), captured.out, captured.err

    return command
