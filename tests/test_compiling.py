import subprocess
import sys

import pytest

from skact import compiling
from skact.compiling import compiled


@pytest.fixture(autouse=True)
def forget():
    compiling._imported.cache_clear()
    yield
    compiling._imported.cache_clear()


def test_many_numbers_are_worth_a_compiler():
    pytest.importorskip("numba")
    many = compiling._WORTH_COMPILING
    assert compiled("skact._floats_compiled", many).__name__ == "skact._floats_compiled"
    assert compiled("skact._floats_compiled", many - 1) is None


def test_without_numba_there_is_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "skact._floats_compiled", raising=False)
    assert compiled("skact._floats_compiled", 2**40) is None


def test_few_numbers_load_no_compiler():
    code = (
        "import sys, numpy as np\nfrom skact import TokenScaler\n"
        "TokenScaler().fit_transform(np.eye(8, dtype=np.float16))\nprint('numba' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
