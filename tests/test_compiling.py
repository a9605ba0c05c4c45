import sys

import pytest

from skact import compiling
from skact.compiling import compiled
from tests.fresh import printed_by


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


@pytest.mark.parametrize(
    "fit",
    [
        "LinearSeparator('adam').fit(np.eye(8), np.arange(8) % 2)",
        "TokenScaler().fit_transform(np.eye(8, dtype=np.float16))",
    ],
)
def test_few_numbers_load_no_compiler(fit):
    imports = "import sys, numpy as np\nfrom skact import LinearSeparator, TokenScaler"
    assert printed_by(f"{imports}\n{fit}\nprint('numba' in sys.modules)") == "False"
