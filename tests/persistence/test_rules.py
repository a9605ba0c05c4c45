"""The rules for fitted attributes say what the docstrings say."""

import inspect
import re

import pytest
from sklearn.base import BaseEstimator

from skact.persistence import _classes
from skact.persistence._rules import RULES

CLASSES = {
    name.rpartition(".")[2]: _classes.class_of(name)
    for name in _classes._ROOMS
    if name.startswith("skact.")
}
ESTIMATORS = {name: cls for name, cls in CLASSES.items() if issubclass(cls, BaseEstimator)}
# Shown to people, and never computed with.
FIGURES = {"loss_curves_", "f1_curves_", "frequency_range_"}
# Of some classes a property, or there in some cases alone.
PROPERTIES = {"unsure_thresholds_", "n_features_in_"}
SECTION = re.compile(r"\nAttributes\n-+\n(.*?)(?:\n\n[A-Z][\w ]+\n-+\n|\Z)", re.DOTALL)


def attributes(cls):
    """Fitted attributes of a docstring: name and what is said of its type."""
    section = SECTION.search(inspect.getdoc(cls))
    for line in section[1].splitlines() if section else ():
        match = re.fullmatch(r"(\w+_(?:, \w+_)*) : (.*)", line)
        for name in match[1].split(", ") if match else ():
            if not inspect.isdatadescriptor(inspect.getattr_static(cls, name, None)):
                yield name, match[2]


def test_every_estimator_that_is_fitted_has_rules():
    fitted = {name for name, cls in ESTIMATORS.items() if any(attributes(cls))}
    assert fitted == set(RULES)
    assert len(fitted) > 40


@pytest.mark.parametrize("name", RULES)
def test_rules_say_what_the_docstring_says(name):
    documented, rules = dict(attributes(ESTIMATORS[name])), RULES[name]
    compared = 0
    assert {k for k in documented if k not in rules} <= FIGURES | {"classes_", "multilabel_"}
    assert {k for k in rules if k not in documented and k.endswith("_")} <= PROPERTIES
    for key, said in documented.items():
        shape = re.match(r"ndarray of shape \(([^)]*)\)", said)
        rule = rules.get(key, "").removesuffix(" (optional)").split()
        if shape is None or not rule or key == "classes_":
            continue
        sizes = re.findall(r"[^ ,][^,]*", shape[1])
        assert len(rule) - 1 == len(sizes), (key, said, rule)
        for size, ruled in zip(sizes, rule[1:], strict=True):
            assert not size.isdigit() or size == ruled, (key, said, rule)
        assert rule[0].endswith("?") == said.endswith("None"), (key, said, rule)
        dtypes = {"int64": "int", "float64": "float", "float32": "float", "object": "names"}
        dtype = re.search(r"dtype (\w+)", said)
        if dtype:
            kind = re.match(r"\w+", rule[0])[0]
            assert kind == dtypes.get(dtype[1], dtype[1]), (key, said, rule)
        compared += 1
    assert compared or not any("ndarray" in said for said in documented.values())
