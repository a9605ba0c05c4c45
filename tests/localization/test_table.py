"""The page holds the committed results, and these are complete."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "user_guide" / "localization.md"
METHODS = {
    "direct", "lime", "kernel_shap", "rise", "shapiq",
    "integrated_gradients", "grad_cam", "full_grad", "calm", "mfaba",
}  # fmt: skip


@pytest.fixture(scope="module")
def render():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        return runpy.run_path(str(ROOT / "benchmarks" / "render_localization.py"))


def test_the_page_holds_the_committed_results(render):
    page = PAGE.read_text(encoding="utf-8")
    sections = list(render["sections"]())
    assert len(sections) == 6 * len(render["SETS"])
    # Sentences are broken into lines on the page.
    flowing = " ".join(page.split())
    for section in sections:
        assert " ".join(section.split()) in flowing


def test_every_method_is_there_with_both_targets(render):
    for name in render["SETS"]:
        result = render["read"](name)
        pairs = {(row["method"], row["target"]) for row in result["table"]}
        assert pairs == {(m, t) for m in METHODS for t in ("global", "local")}
        assert set(result["gain_of_local"]) == METHODS
        assert result["positive_test_pairs"] >= result["pairs"] > 0


def test_gains_are_the_differences_of_the_rows(render):
    """The rows and the paired gains were computed apart from each other."""
    for name in render["SETS"]:
        result = render["read"](name)
        rows = {(row["method"], row["target"]): row for row in result["table"]}
        for method, gain in result["gain_of_local"].items():
            for score in ("f1", "iou", "average_precision", "pointing_game"):
                local, globally = (rows[method, t][score][0] for t in ("local", "global"))
                assert gain[score][0] == pytest.approx(local - globally, abs=2e-4)
