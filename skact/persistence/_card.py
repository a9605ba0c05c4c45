"""What a file says to a person, read from its nodes and without making anything of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

__all__ = ["ModelCard"]

_LONGEST = 200  # characters of a cell
_MOST = 1000  # rows of a table
_WIDE, _DEEP = 8, 3  # entries of a parameter that are shown, and how deep
_FIGURES = ("f1", "floor", "gain", "gain_low", "gain_high", "auroc")
_EFFORT = 10**5  # values that are looked at: a small file may name one many times
_PARTS = ("embedder", "concepts", "detector", "estimator")


@dataclass(frozen=True)
class ModelCard:
    """What a file holds, as :func:`skact.describe` reads it.

    Parameters
    ----------
    estimator : str
        Class of what was saved.
    version : str
        Version of the package that wrote it.
    n_bytes : int
        Length of the file.
    steps : list of str
        The estimators that answer, with their parameters, indented by depth.
    sources : list of dict
        What the estimators that answer read, each once: model, revision, block,
        ``hidden_states`` index, what is read there, and scaling.
    decisions : list of dict
        Of each concept its threshold and what that promises, with figures and sizes of the
        calibration where they are known.
    left_out : list of str
        What does not travel.
    """

    estimator: str
    version: str
    n_bytes: int
    steps: list[str]
    sources: list[dict[str, Any]]
    decisions: list[dict[str, Any]]
    left_out: list[str]

    @classmethod
    def of(cls, about: dict[str, Any], n_bytes: int) -> ModelCard:
        """Read the card from the JSON of a header.

        Parameters
        ----------
        about : dict
            As it was written.
        n_bytes : int
            Length of the file.

        Returns
        -------
        card : ModelCard
            The card.
        """
        nodes = _Nodes(about["nodes"])
        whole = {"node": len(nodes.nodes) - 1}
        return cls(
            estimator=str(about["estimator"]),
            version=str(about["version"]),
            n_bytes=n_bytes,
            steps=list(nodes.steps(whole, 0)),
            sources=nodes.sources(whole),
            decisions=list(nodes.decisions(whole)),
            left_out=[str(one) for one in about["left_out"]],
        )

    def to_markdown(self) -> str:
        """Write the card as Markdown, with all text of the file escaped.

        Returns
        -------
        text : str
            Headings, lists and tables.
        """
        lines = [
            f"# {_plain(self.estimator)}",
            "",
            f"Saved by skact {_plain(self.version)}; {self.n_bytes} bytes, as they were written.",
            *("", "## Steps", ""),
            *(f"{' ' * (len(s) - len(s.lstrip()))}- {_plain(s.strip())}" for s in self.steps),
        ]
        if self.sources:
            lines += ["", "## What it reads", "", *_table(self.sources)]
        if self.decisions:
            lines += ["", "## What it decides", "", *_table(self.decisions)]
        if self.left_out:
            lines += ["", "## What did not travel", "", *(f"- {_plain(s)}" for s in self.left_out)]
        return "\n".join(lines) + "\n"

    def __str__(self) -> str:
        return self.to_markdown()

    def _repr_markdown_(self) -> str:
        return self.to_markdown()


class _Nodes:
    """Nodes of a file, looked at."""

    def __init__(self, nodes: Any) -> None:
        if not isinstance(nodes, list) or not nodes:
            raise ValueError("it holds no estimator")
        self.nodes = nodes
        self._seen: set[Any] = set()
        self._left = _EFFORT

    def _node(self, value: Any) -> dict[str, Any]:
        """Node that a value names; empty if it names none."""
        number = value.get("node") if isinstance(value, dict) else None
        node = self.nodes[number] if type(number) is int and 0 <= number < len(self.nodes) else {}
        return node if isinstance(node, dict) else {}

    def _state(self, value: Any) -> dict[str, Any]:
        state = self._node(value).get("state", {})
        return state if isinstance(state, dict) else {}

    def _pairs(self, value: Any) -> list[tuple[Any, Any]]:
        """Entries of a dict, or of a list of named steps."""
        node = self._node(value)
        if "dict" in node:
            return [(key, one) for key, one in node["dict"]]
        steps = [self._node(step).get("tuple", []) for step in node.get("list", [])]
        return [(step[0], step[1]) for step in steps if len(step) >= 2]

    def _entries(self, value: Any) -> list[Any]:
        """Values of a one-dimensional array, a list or a tuple."""
        node = self._node(value)
        kinds = ("numbers", "texts", "objects", "list", "tuple")
        found: Any = next((node[kind] for kind in kinds if kind in node), [])
        return found if isinstance(found, list) else []

    def _children(self, state: dict[str, Any]) -> list[tuple[Any, Any]]:
        """Estimators that answer for one, by name; of a search those of each concept."""
        for key in ("pipelines_", "best_estimators_", "steps", "transformer_list"):
            if key in state:
                return self._pairs(state[key])
        if "estimator_" in state:
            return [("estimator_", state["estimator_"])]
        return [(key, state[key]) for key in _PARTS if "state" in self._node(state.get(key))]

    def text(self, value: Any, depth: int = 0) -> str:
        """Show a value, shortened."""
        self._left -= 1
        if self._left < 0:
            return "..."
        if not isinstance(value, dict):
            return f"{value:.4g}" if type(value) is float and depth < 0 else repr(value)[:_LONGEST]
        if "float" in value:
            return str(value["float"])[:9]
        node = self._node(value)
        if "class" in node:
            name, state = str(node["class"]).rpartition(".")[2], self._state(value)
            if name == "DetachedPair":
                return f"a loaded model ({state.get('name') or 'of no name'})"[:_LONGEST]
            return (
                f"{name}(...)" if depth >= _DEEP else f"{name}({self._arguments(state, depth + 1)})"
            )
        if "path" in node or "scalar" in node:
            return self.text(node.get("path", node.get("scalar")), depth + 1)
        if "tensor" in node:
            return "array(...)"
        entries = self._pairs(value) if "dict" in node else self._entries(value)
        if depth >= _DEEP:
            return "..."
        shown = [
            f"{self.text(e[0], depth + 1)}: {self.text(e[1], depth + 1)}"
            if isinstance(e, tuple)
            else self.text(e, depth + 1)
            for e in entries[:_WIDE]
        ]
        return f"[{', '.join(shown + ['...'] * (len(entries) > _WIDE))}]"

    def _arguments(self, state: dict[str, Any], depth: int) -> str:
        shown = [
            f"{key}={self.text(one, depth)}"
            for key, one in state.items()
            if not key.endswith("_") and not key.startswith("_")
        ]
        return ", ".join(shown[:30])

    def steps(self, value: Any, depth: int, name: str = "") -> Iterator[str]:
        """Yield a line for each estimator that answers, once."""
        number = value.get("node") if isinstance(value, dict) else None
        node, state = self._node(value), self._state(value)
        if "class" not in node or depth > 2 * _WIDE:
            return
        kind = str(node["class"]).rpartition(".")[2]
        label = f"{'  ' * depth}{name}{': ' if name else ''}"
        if number in self._seen:
            yield f"{label}{kind}, as above"
            return
        self._seen.add(number)
        children = self._children(state)
        inner = ("param_grid", "estimator", "steps", "transformer_list", "cv", *_PARTS)
        own = {k: v for k, v in state.items() if not (children and k in inner)}
        yield f"{label}{kind}({self._arguments(own, 1)})"
        for key, child in children[:_MOST]:
            yield from self.steps(child, depth + 1, str(key))

    def sources(self, value: Any) -> list[dict[str, Any]]:
        """List what is read by the estimators that answer, each once."""
        rows: dict[str, dict[str, Any]] = {}
        for state in self._sources(value):
            block = state.get("block")
            row = {
                "model": state.get("model"),
                "revision": state.get("revision"),
                "block, from 0": block,
                "hidden_states": f"[{block + 1}]" if type(block) is int else None,
                "what is read": state.get("convention"),
                "scaling": state.get("scaling"),
            }
            if len(rows) < _MOST:
                rows[str(row)] = row
        # A scaler reads what the steps behind it read scaled.
        scaled = [{**row, "scaling": None} for row in rows.values() if row["scaling"]]
        return [row for row in rows.values() if row not in scaled]

    def _sources(self, value: Any) -> Iterator[dict[str, Any]]:
        """Find sources in what answers, and in nothing that was compared with it and lost."""
        seen, todo = set(), [value]
        while todo:
            value = todo.pop()
            node, state = self._node(value), self._state(value)
            if not node or value["node"] in seen:
                continue
            seen.add(value["node"])
            if node.get("class") == "skact.tokens.Source":
                yield state
                continue
            inside = self._children(state) or [*state.items(), *self._pairs(value)]
            todo += [*(one for _, one in inside), *self._entries(value)][::-1]

    def decisions(self, value: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
        """Yield a row for each concept, by the detector that decides it."""
        state = self._state(value)
        self._left -= 1
        if "thresholds_" in state:
            yield from self._thresholds(state)
            return
        by_concept = "pipelines_" in state or "best_estimators_" in state
        figures = self._figures(state)
        for name, child in (
            self._children(state)[:_MOST] if depth <= _WIDE and self._left > 0 else ()
        ):
            for row in self.decisions(child, depth + 1):
                if not by_concept or row["concept"] == name:
                    yield {**row, **(figures.get(name, {}) if by_concept else {})}

    def _thresholds(self, state: dict[str, Any]) -> Iterator[dict[str, Any]]:
        columns = {
            "threshold": self._entries(state["thresholds_"]),
            "positive samples": self._entries(state.get("n_positive_")),
        }
        two = self._entries(state.get("unsure_thresholds_"))
        for c, name in enumerate(self._entries(state.get("concept_names_"))[:_MOST]):
            row = {"concept": name}
            row |= {key: column[c] for key, column in columns.items() if c < len(column)}
            if 2 * c < len(two):
                row["unsure above"] = two[2 * c]
            if "n_samples_" in state:
                row["samples"] = state["n_samples_"]
            yield {**row, "promise": self._promise(state)}

    def _promise(self, state: dict[str, Any]) -> str:
        cuts, levels = (
            self._entries(state.get(key)) or [state.get(key)] for key in ("cut", "level")
        )
        words = {"recall": "recall of at least", "false_alarms": "false alarms of at most"}
        said = [
            f"{words[cut]} {level}"
            for cut, level in zip(cuts, levels, strict=False)
            if cut in words
        ]
        if said:
            sure = state.get("confidence")
            how = "on average over calibrations" if sure is None else f"in {sure} of calibrations"
            return f"{' and '.join(said)}, {how}, on samples like those of the calibration"
        if cuts[0] in (None, "tail") and state.get("delta") is not None:
            return f"none: tail of the scores at delta {state['delta']}"
        return "none" if cuts[0] is None else f"none: the cut of the best {cuts[0]}"

    def _figures(self, state: dict[str, Any]) -> dict[Any, dict[str, Any]]:
        """Figures of each concept, from cross-validation."""
        if "results_" in state:
            columns = {key: self._entries(one) for key, one in self._pairs(state["results_"])}
            names = columns.get("concept", [])
        else:
            names = self._entries(state.get("concept_names_"))
            columns = {"f1": self._entries(state.get("best_score_"))}
        return {
            name: {
                key.replace("_", " "): columns[key][c]
                for key in _FIGURES
                if c < len(columns.get(key, ()))
            }
            for c, name in enumerate(names)
        }


def _plain(text: Any) -> str:
    """Escape a text of a file, so that it is shown and means nothing."""
    said = f"{text:.4g}" if type(text) is float else "" if text is None else str(text)
    said = re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in said))
    said = f"{said[:_LONGEST]}..." if len(said) > 5 * _LONGEST else said
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", escape(said, quote=False))


def _table(rows: list[dict[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    columns = [key for key in columns if any(row.get(key) is not None for row in rows)]
    body = [[_plain(row.get(key)) for key in columns] for row in rows]
    return [f"| {' | '.join(line)} |" for line in (columns, ["---"] * len(columns), *body)]
