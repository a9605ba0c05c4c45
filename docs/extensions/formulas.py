"""Formulas as MathML, which browsers draw by themselves: no script, no font, no network."""

import re

from latex2mathml import converter

# What the converter does not know, what few fonts have, and what browsers draw wrong: an exponent
# makes the last bar of a norm, or of sized brackets, small and low, unless the pair is one thing.
REWRITTEN = (
    (r"\\arg(?!\w)", r"\\operatorname{arg}"),
    (r"\\setminus(?!\w)", r"\\,\\backslash\\,"),
    (r"\\[bB]igl?(\(|\[|\\\{)", r"\\left\1"),
    (r"\\[bB]igr?(\)|\]|\\\})", r"\\right\1"),
    (r"\\lVert", r"{\\lVert"),
    (r"\\rVert", r"\\rVert}"),
)


def convert(formula, display="inline"):
    """Write a formula in MathML; a command that would stand in it as it is written is an error."""
    rewritten = formula
    for known, written in REWRITTEN:
        rewritten = re.sub(known, written, rewritten)
    mathml = converter.convert(rewritten, display=display)
    if unknown := re.findall(r"\\\w*", mathml):
        raise ValueError(f"{unknown} would be drawn as they are written, in {formula!r}.")
    return mathml


def inline(translator, node):
    """Write a formula within a line."""
    translator.body.append(convert(node.astext()))


def block(translator, node):
    """Write a formula of its own, which scrolls by itself where the page is too narrow."""
    translator.body.append(f'<div class="math">{convert(node.astext(), "block")}</div>\n')


def leave(translator, node):
    """Write nothing more: the formula is all there is."""


def render(visit):
    """Make a visitor that writes a node without its children."""

    def visitor(translator, node):
        visit(translator, node)
        node.children = []

    return visitor, leave


def setup(app):
    """Register the renderer."""
    app.add_html_math_renderer("mathml", render(inline), render(block))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
