"""Distributions and intervals as SVG, in the colours of the page, with their words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skact.inspection import escaped
from skact.metrics import Interval
from skact.rows import Array

__all__ = ["interval_bar", "number", "percent", "histogram"]

# Of a chart, in its own units.
_WIDTH, _HALF, _LEFT, _AXIS = 640, 74, 46, 30


def number(value: float, digits: int = 3) -> str:
    """Write a number for a person; a dash where there is none."""
    return f"{value:.{digits}g}" if np.isfinite(value) else "–"


def percent(share: float) -> str:
    """Write a share for a person."""
    return f"{100 * share:.0f} %"


def interval_bar(f1: Interval, floor: float) -> str:
    """Draw an estimate with its interval on a line from 0 to 1, and the floor as a tick.

    Parameters
    ----------
    f1 : Interval
        The estimate.
    floor : float
        What it has to be above.

    Returns
    -------
    html : str
        An SVG that is hidden from screen readers: the numbers stand beside it.
    """
    if not np.isfinite(f1.estimate):
        return ""
    x = [4 + 152 * value for value in (*f1, floor)]
    ends = (
        f'<line class="range" x1="{x[1]:.1f}" x2="{x[2]:.1f}" y1="11" y2="11"/>'
        if np.isfinite(f1.low)
        else ""
    )
    return (
        '<svg class="bar" viewBox="0 0 160 22" width="160" height="22" aria-hidden="true">'
        '<line class="rule" x1="4" x2="156" y1="11" y2="11"/>'
        f'<line class="floor" x1="{x[3]:.1f}" x2="{x[3]:.1f}" y1="2" y2="20"/>'
        f'{ends}<circle class="dot" cx="{x[0]:.1f}" cy="11" r="4.5"/></svg>'
    )


def histogram(
    groups: Sequence[tuple[str, Array]], threshold: float | None, what: str, n_bins: int = 40
) -> str:
    """Draw the distributions of one or two groups, the second one downwards.

    Parameters
    ----------
    groups : sequence of one or two (str, ndarray)
        Name and finite values of each.
    threshold : float or None
        Drawn as a line.
    what : str
        What is counted.
    n_bins : int, default=40
        Bars of a group.

    Returns
    -------
    html : str
        A figure with its words, which say as much as the picture.
    """
    groups = [(name, values) for name, values in groups if len(values)]
    cut = threshold if threshold is not None and np.isfinite(threshold) else None
    everything = np.concatenate([values for _, values in groups] + [[cut]] * (cut is not None))
    low, high = float(everything.min()), float(everything.max())
    edges = np.linspace(low, high if high > low else low + 1, n_bins + 1)
    shares = [np.histogram(values, edges)[0] / len(values) for _, values in groups]
    said = _said(groups, cut, what)
    key = "".join(
        f'<li><span class="key group{k}" aria-hidden="true"></span>{escaped(name)} '
        f"({len(values)}){('', ', upwards', ', downwards')[(k + 1) * (len(groups) > 1)]}</li>"
        for k, (name, values) in enumerate(groups)
    )
    if cut is not None:
        key += f'<li><span class="key cut" aria-hidden="true"></span>threshold {number(cut)}</li>'
    height = 12 + _HALF * len(groups) + _AXIS
    return (
        f'<figure><svg class="chart" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{escaped(said)}">{_drawn(shares, edges, cut, height)}</svg>'
        f'<figcaption><ul class="keys">{key}</ul><p>{escaped(said)}</p></figcaption></figure>'
    )


def _drawn(shares: Sequence[Array], edges: Array, cut: float | None, height: float) -> str:
    """Bars, axes and threshold of a histogram."""
    base, top = 12 + _HALF, max(float(share.max()) for share in shares)
    right = _WIDTH - 10

    def place(value: float) -> float:
        return _LEFT + (right - _LEFT) * (value - edges[0]) / (edges[-1] - edges[0])

    parts = []
    for k, share in enumerate(shares):
        for i in np.flatnonzero(share):
            tall, x = max(_HALF * share[i] / top, 0.75), place(edges[i])
            parts.append(
                f'<rect class="group{k}" x="{x + 0.5:.1f}" y="{base if k else base - tall:.1f}" '
                f'width="{place(edges[i + 1]) - x - 1:.1f}" height="{tall:.1f}"/>'
            )
    parts.append(f'<line class="rule" x1="{_LEFT}" x2="{right}" y1="{base}" y2="{base}"/>')
    marks = [(20, top), (base + 4, 0.0), (base + _HALF, top)][: 1 + len(shares)]
    parts += [_text(_LEFT - 6, y, number(value, 2), "end") for y, value in marks]
    anchors = ("start", "middle", "middle", "middle", "end")
    for value, anchor in zip(np.linspace(edges[0], edges[-1], 5), anchors, strict=True):
        parts.append(_text(place(value), height - 8, number(value), anchor))
    if cut is not None:
        x, end = place(cut), height - _AXIS + 4
        parts.append(f'<line class="cut" x1="{x:.1f}" x2="{x:.1f}" y1="6" y2="{end}"/>')
    return "".join(parts)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escaped(text)}</text>'


def _said(groups: Sequence[tuple[str, Array]], threshold: float | None, what: str) -> str:
    """Say in words what a histogram shows."""
    parts = []
    for name, values in groups:
        middle = f"median {number(float(np.median(values)))}"
        reach = ""
        if threshold is not None:
            reach = f", {percent(float(np.mean(values >= threshold)))} reach the threshold"
        parts.append(f"{name}: {len(values)} {what}, {middle}{reach}")
    return "; ".join(parts) + "."
