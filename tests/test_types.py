"""Type checkers of users see the types: names, parameters, results, and a call that is wrong.

`make lint` has mypy read the same file; here is what takes longer.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.nightly
USE = Path(__file__).parent / "typing" / "use.py"


def checked_by(command, path):
    run = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
    return run.returncode, run.stdout + run.stderr


@pytest.fixture(params=["mypy", "pyright"])
def checker(request):
    """Return the command of a type checker."""
    if request.param == "mypy":
        return [sys.executable, "-m", "mypy", "--strict"]
    beside = Path(sys.executable).with_name("pyright")
    found = str(beside) if beside.exists() else shutil.which("pyright")
    if not found:
        pytest.skip("pyright is not installed")
    code, said = checked_by([found], "--version")
    if code or not re.search(r"pyright \d", said):
        pytest.skip("pyright cannot run: it fetches itself with npm when it first runs")
    return [found, "--pythonpath", sys.executable]


def test_what_users_write_has_types(checker):
    code, said = checked_by(checker, USE)
    assert code == 0, said


def test_a_wrong_call_is_found(checker, tmp_path):
    wrong = USE.read_text(encoding="utf-8") + 'skact.TokenScaler(weight="none")\nX.n_token\n'
    (tmp_path / "wrong.py").write_text(wrong, encoding="utf-8")
    code, said = checked_by(checker, tmp_path / "wrong.py")
    assert code == 1
    assert "weight" in said
    assert "n_token" in said
