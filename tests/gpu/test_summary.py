"""The summary of scripts/gpu_checks.sh: a check that failed, hung or did not run cannot pass for one that passed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu_summary.py"
PASSED = '<testsuites><testsuite><testcase classname="tests.gpu.test_a" name="one"/></testsuite></testsuites>'
FAILED = PASSED.replace("/></testsuite>", '><failure message="no"/></testcase></testsuite>')
SKIPPED = PASSED.replace("/></testsuite>", '><skipped message="torch sees no GPU"/></testcase></testsuite>')


def summary(out: Path, parts: str, **reports: str) -> tuple[int, str]:
    """The exit code and what is printed."""
    (out / "parts.tsv").write_text(parts)
    for name, report in reports.items():
        (out / f"{name}.xml").write_text(report)
    done = subprocess.run([sys.executable, str(SCRIPT), "summary", str(out)], capture_output=True, text=True)
    return done.returncode, done.stdout


def test_all_passed(tmp_path: Path) -> None:
    code, printed = summary(tmp_path, "a\t0\t3\nbench\t0\t7\n", a=PASSED)
    assert code == 0 and "a: 1 passed, 0 failed, 0 skipped; passed (3 s)" in printed
    assert "Nothing that ran failed" in printed and "Not run" not in printed
    assert json.loads((tmp_path / "summary.json").read_text())["bench"] == {"ended": "passed", "seconds": 7}


@pytest.mark.parametrize(
    ("parts", "report", "said"),
    [
        ("a\t1\t3\nbench\t0\t7\n", FAILED, "failed: test_a::one"),
        ("a\t124\t3\nbench\t0\t7\n", PASSED, "stopped at its time limit"),
        ("a\t137\t3\nbench\t0\t7\n", PASSED, "stopped at its time limit"),
        ("a\t5\t3\nbench\t0\t7\n", PASSED, "failed, with code 5"),
    ],
)
def test_what_failed_or_hung_fails(tmp_path: Path, parts: str, report: str, said: str) -> None:
    code, printed = summary(tmp_path, parts, a=report)
    assert code == 1 and said in printed and "Failed: a\n" in printed


def test_what_did_not_run_is_named(tmp_path: Path) -> None:
    code, printed = summary(tmp_path, "a\t0\t3\nbench\tno GPU\t0\n", a=SKIPPED)
    assert code == 0 and "0 passed, 0 failed, 1 skipped" in printed
    assert "Not run, because torch sees no GPU: a, bench" in printed
