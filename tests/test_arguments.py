"""Arguments of public functions: one way to check them, and what each says to bad ones."""

import inspect
import os
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import pytest

import skact
from skact import (
    RISE,
    ActivationStore,
    Adam,
    AutoencoderTraining,
    ConceptLocalizer,
    ConceptSearchCV,
    CrossFitTransformer,
    LayerStack,
    LinearSeparator,
    MeanPrototype,
    PromptDetector,
    SparseAutoencoder,
    SuperActivator,
    TokenArray,
    TransformerEmbedder,
    arguments,
    localization,
)
from skact.arguments import Number, checked
from skact.embedding import embed_to_store

X = np.random.default_rng(0).random((10, 3))
Y = np.arange(10) % 2
TOKENS = TokenArray(X, np.arange(11))
MAP = [[0.1], [0.2], [0.3]]
WORD = [skact.Token("a", 0, 1)]
DISPLAY = skact.TokenHeatMapDisplay("a", WORD, [0.5])
FITTED = SuperActivator().fit(X, Y)


def search(param_grid=None, **params):
    grid = {"delta": [0.1, 0.5]} if param_grid is None else param_grid
    return ConceptSearchCV(SuperActivator(), grid, **{"cv": 2, **params})


class Sum:
    n_players, n_targets = 3, 1

    def __call__(self, masks):
        return masks @ np.ones((3, 1))


# Of these, containers alone are given, which are checked by what they hold.
BY_CONTENT = {
    "check_tokens",
    "pointing_game_score",
    "shapes_model_path",
    "token_average_precision_score",
    "token_f1_score",
    "token_iou_score",
    "concept_iou",
    "weighted_f1_score",
}


@pytest.mark.parametrize("room", [skact, localization], ids=lambda room: room.__name__)
def test_every_public_function_is_checked_in_one_way(room):
    functions = {n: getattr(room, n) for n in room.__all__ if inspect.isfunction(getattr(room, n))}
    assert {n for n, f in functions.items() if not constraints(f)} == BY_CONTENT & set(functions)
    for name in functions.keys() - BY_CONTENT:
        parameters = inspect.signature(functions[name]).parameters
        assert set(constraints(functions[name])) <= set(parameters), name
        settings = {n for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
        assert settings <= set(constraints(functions[name])), name


def constraints(function):
    return getattr(function, "_skl_parameter_constraints", {})


@checked(
    size=[Number(Integral, 1, None, closed="left"), None], share=[Number(Real, 0, 1, closed="both")]
)
def cut(size, share=0.5, **rest):
    """Cut."""
    return size, share, rest


class Knife:
    @checked(size=[Number(Integral, 1, None, closed="left")])
    def __init__(self, size):
        self.size = size

    @classmethod
    @checked(size=[Number(Integral, 1, None, closed="left")])
    def made(cls, size):
        return cls(size)


def test_what_is_right_goes_through():
    assert cut(3, other=1) == (3, 0.5, {"other": 1})
    assert cut(size=None, share=np.float32(1)) == (None, 1, {})
    assert cut(np.int64(2), 1)[:2] == (2, 1)
    assert Knife.made(4).size == 4
    assert (cut.__name__, cut.__doc__) == ("cut", "Cut.")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cut(0), r"'size' parameter of cut must be an int in .* or None. Got 0 instead"),
        (lambda: cut(True), "Got True"),
        (lambda: cut(1, share=np.True_), "'share' .* Got (np.)?True"),
        (lambda: cut(1, np.nan), "'share' .* Got nan"),
        (lambda: cut(1, share="a"), "'share' .* Got 'a'"),
        (lambda: Knife(0), "'size' parameter of Knife must"),
        (lambda: Knife.made(0.5), "'size' parameter of Knife.made must"),
        (lambda: cut(), "missing 1 required positional argument: 'size'"),
        (lambda: Knife(1, 2), "takes 2 positional arguments but 3 were given"),
    ],
)
def test_what_is_wrong_is_named(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("cat", "concepts must be a list of names, got 'cat'"),
        (b"cat", "must be a list of names"),
        (3, "must be a list of names, got 3"),
        ([], "at least one name"),
        (["a", " "], r"concepts\[1\] must be a name, got ' '"),
        (["a", None], r"concepts\[1\] must be a name, got None"),
        ([np.nan], r"concepts\[0\] must be a name, got nan"),
        (np.zeros((2, 2)), r"concepts\[0\] must be a name, got array"),
        (["a", "b", "a"], "'a' comes twice"),
        (["a", "b\ud800"], r"concepts\[1\] holds '.ud800' at character 1, half of a surrogate"),
        ([1, 2, 1], "1 comes twice"),
    ],
)
def test_names_of_concepts(names, message):
    assert arguments.check_concepts(("a", "b")) == ["a", "b"]
    assert arguments.check_concepts(iter([3, "x\U0001f600"])) == [3, "x\U0001f600"]
    with pytest.raises(ValueError, match=message):
        arguments.check_concepts(names)


FUNCTIONS = [
    ("bootstrap_interval", (3, 3), {}, "'y_true'"),
    ("bootstrap_interval", (Y, Y), {"metric": 3}, "'metric'"),
    ("concept_f1", ([1, 1, 0], [1, 0]), {}, r"differ in shape: \(3,\) and \(2,\)"),
    ("concept_f1", ([1, 2, 0], [1, 0, 0]), {}, "present must hold 0 and 1, got 2"),
    ("concept_f1", ([1], ["a"]), {}, "predicted must hold 0 and 1 .* dtype <U1"),
    ("concept_f1", ([], []), {}, "one or more samples"),
    ("concept_f1", (None, [1]), {}, "'present'"),
    ("deletion_curve", (3, MAP), {}, "'game' parameter of deletion_curve must be a game, callable"),
    ("depth_to_block", ("a", 6), {}, "'fraction'"),
    ("depth_to_block", (0.5, "x"), {}, "'n_blocks'"),
    ("depth_to_block", (True, 6), {}, "'fraction'"),
    ("elbow_curve", (X, 3), {}, "'n_concepts_grid' .* an iterable of ints"),
    ("elbow_curve", (X, ["a"]), {}, "n_concepts_grid must hold positive integers"),
    ("elbow_curve", (X, [1]), {"backend": "auto"}, "'backend' parameter of elbow_curve"),
    ("elbow_curve", (X, [1]), {"n_init": 0}, "'n_init' parameter of elbow_curve"),
    ("embed_to_store", (["a"], MeanPrototype(), "x"), {}, r"'embedder' .* a TransformerEmbedder\("),
    ("embed_to_store", (["a"], "x", TransformerEmbedder()), {}, "'embedder' .* Got 'x'"),
    ("embed_to_store", (["a"], TransformerEmbedder(), 3), {}, r"'store' .* an ActivationStore\("),
    ("embed_to_store", (["a"], TransformerEmbedder, "x"), {}, "'embedder' .* Got <class"),
    ("faithfulness", (Sum, None), {}, "'games' .* an iterable of games"),
    ("faithfulness", ([Sum()], None), {}, "'attributions' .* an array-like"),
    ("faithfulness", (None, [MAP]), {}, "'games'"),
    ("faithfulness", ([3], [MAP]), {}, "sample 0: games must hold a game"),
    ("insertion_curve", (Sum(), MAP), {"n_steps": 1.5}, "'n_steps' .* Got 1.5"),
    ("insertion_curve", (Sum(), MAP), {"n_steps": "a"}, "'n_steps' .* Got 'a'"),
    ("insertion_curve", (Sum(), [["a"]] * 3), {}, "attribution must be an array of numbers"),
    ("keep_pairs", ([1], [True]), {}, "'tokens' .* a TokenArray"),
    ("keep_pairs", (TOKENS, "a"), {}, "'pairs'"),
    ("load_masks", (3,), {}, "'folder' parameter of load_masks must be a path"),
    ("load_spans", (3,), {}, "'folder' parameter of load_spans must be a path"),
    ("make_paragraphs", ("a",), {}, "'n_samples'"),
    ("make_shapes", (), {"noise": "a"}, "'noise'"),
    ("parse_answer", (3,), {}, "'text' parameter of parse_answer"),
    ("parse_tags", (3,), {}, "'text' parameter of parse_tags"),
    ("superactivators", (SuperActivator, X), {}, "'estimator' .* a fitted object"),
    ("tail_threshold", (np.ones(3), 2.0), {}, "'delta'"),
    ("tail_threshold", (np.ones(3), [0.5, 1.0]), {}, r"delta must lie in \(0, 1\)"),
    ("tail_threshold", (np.ones(3), ["a"]), {}, "delta must be an array of numbers"),
    ("tail_threshold", (np.empty(0), 0.1), {}, "at least one score; got shape"),
    ("tail_threshold", (["a"], 0.1), {}, "scores must hold numbers"),
    ("tail_threshold", (3, 0.1), {}, "'scores'"),
]
GAMES = [
    ("lime", (3,), {"n_masks": 9, "random_state": 0}, "'game'"),
    ("kernel_shap", (Sum(),), {"n_masks": 9.5, "random_state": 0}, "'n_masks'"),
    ("rise", (Sum(),), {"n_masks": "a", "random_state": 0}, "'n_masks' .* Got 'a'"),
    ("shapiq", (Sum(),), {"n_masks": 9, "random_state": None}, "'random_state'"),
    ("shapley_interactions", (Sum,), {"n_masks": True, "random_state": 0}, "'n_masks'"),
    ("rise_map", (np.ones((3, 2)), np.ones((4, 1))), {}, r"shapes \(3, 2\) and \(4, 1\)"),
    ("rise_map", (1, 2), {}, "'masks'"),
]


@pytest.mark.parametrize(
    ("room", "case"), [(skact, c) for c in FUNCTIONS] + [(localization, c) for c in GAMES]
)
def test_bad_arguments_of_functions(room, case):
    name, args, kwargs, message = case
    with pytest.raises(ValueError, match=message):
        getattr(room, name)(*args, **kwargs)


def test_lists_are_decisions_too():
    assert skact.concept_f1([1, 1, 0], [True, False, False]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda store: ActivationStore(3), "'path' parameter of ActivationStore must be a path"),
        (lambda store: ActivationStore(""), "'path' parameter of ActivationStore must be a path"),
        (lambda store: ActivationStore(" "), "'path' .* Got ' '"),
        (lambda store: TransformerEmbedder(store="").fit(["a"]), "'store' .* a path or None"),
        (
            lambda store: embed_to_store(["a"], TransformerEmbedder(), ""),
            "'store' .* a path. Got ''",
        ),
        (lambda store: ActivationStore(store.path, layers=b"abc"), "'layers' .* Got b'abc'"),
        (lambda store: store.forget(""), "'keys' .* a list of keys"),
        (lambda store: store.read([b"a"], None), "'keys' .* 32 bytes each"),
        (lambda store: store.read([bytes(32)], "a"), r"'identity' .* an Identity\("),
        (lambda store: store.lacking([bytes(32)], {}), "'identities' .* one or more blocks"),
        (lambda store: store.fill([bytes(32)], {0: 3}, {}, print), "'identities' .* Got {0: 3}"),
        (lambda store: ActivationStore(store.path, layers=3.5), "'layers' .* Got 3.5"),
        (lambda store: ActivationStore(store.path, layers=[0, True]), "'layers'"),
        (lambda store: ActivationStore(store.path, layers=[]), "'layers'"),
        (lambda store: ActivationStore(store.path, chunk_size=True), "'chunk_size'"),
        (lambda store: store.prune(model=3), "'model' parameter of ActivationStore.prune"),
        (lambda store: store.prune(layer="a"), "'layer'"),
        (lambda store: store.prune(layer=True), "'layer'"),
        (lambda store: store.prune(older_than=-1), "'older_than'"),
        (lambda store: store.prune(max_bytes="a"), "'max_bytes'"),
        (lambda store: store.verify("all"), "'repair'"),
        (lambda store: store.export(3), "'file'"),
        (lambda store: store.export("x", convention=3), "'convention'"),
        (lambda store: store.import_(3), "'file'"),
    ],
)
def test_bad_arguments_of_a_store(tmp_path, call, message):
    with pytest.raises(ValueError, match=message):
        call(ActivationStore(tmp_path))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: skact.TokenHeatMapDisplay(3, WORD, [1]),
            "sample must be a text or a chat, got int",
        ),
        (lambda: skact.TokenHeatMapDisplay("a", [], []), "'tokens' .* a list of tokens"),
        (lambda: skact.TokenHeatMapDisplay("a", [3], [1]), "tokens must have a start each, got 3"),
        (lambda: skact.PatchHeatMapDisplay("a", WORD, [1]), "sample 0: the image 'a' cannot be"),
        (lambda: skact.TokenHeatMapDisplay("a", WORD, ["x"]), "scores must be an array of numbers"),
        (lambda: skact.TokenHeatMapDisplay("a", WORD, [1j]), "scores .* complex"),
        (
            lambda: skact.TokenHeatMapDisplay("a", WORD, [1], ["x"]),
            "superactivators must hold True",
        ),
        (lambda: skact.TokenHeatMapDisplay("a", WORD, [1], concept=3), "'concept' .* Got 3"),
        (lambda: skact.TokenHeatMapDisplay("a", WORD, [1], center=np.nan), "'center' .* Got nan"),
        (lambda: DISPLAY.plot(ax=3), "'ax' .* matplotlib Axes or None. Got 3"),
        (lambda: DISPLAY.plot(cmap="mauve"), "cmap must name a colour map .* got 'mauve'"),
        (lambda: DISPLAY.to_html(cmap=3), "'cmap' .* the name of a colour map or None. Got 3"),
        (lambda: DISPLAY.to_html(title=3), "'title' .* Got 3"),
        (lambda: DISPLAY.to_html(""), "'path' .* a path or None. Got ''"),
        (lambda: skact.LocalizationDisplay("a", WORD, [1]), "'maps' .* a dict of methods to dicts"),
        (lambda: skact.LocalizationDisplay("a", WORD, {"a": [1]}), "'maps' .* Got {'a': "),
        (lambda: skact.LocalizationDisplay("a", [], {}), "'tokens' .* a list of tokens"),
    ],
)
def test_bad_arguments_of_displays(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


@pytest.mark.parametrize("layers", [None, "all", [0, -1], [0.5, 1.0], (1, 0.25), -1, np.arange(2)])
def test_layers_of_a_store(tmp_path, layers):
    assert ActivationStore(tmp_path, layers=layers).layers is layers


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: LayerStack([TOKENS]), TypeError, "layers must be a mapping .* got list"),
        (lambda: LayerStack({"a": TOKENS, 1: TOKENS}), TypeError, "block numbers, got 'a'"),
        (lambda: LayerStack({True: TOKENS}), TypeError, "block numbers, got True"),
        (lambda: LayerStack({1: TOKENS}).layer([0]), ValueError, r"layer must be .* got \[0\]"),
        (lambda: LayerStack.concatenate([1]), TypeError, "parts must hold LayerStacks, got int"),
        (lambda: TokenArray.concatenate([1]), TypeError, "parts must hold TokenArrays, got int"),
        (lambda: TokenArray.concatenate(3), TypeError, "'parts' .* a list"),
        (lambda: LayerStack({1: TOKENS}).layer(True), ValueError, "layer must be .* got True"),
        (lambda: LayerStack({1: TOKENS}).layer(1.0), ValueError, "layer must be .* got 1.0"),
        (lambda: TOKENS.columns(0), IndexError, "columns must be 1-D integers or bools, got 0-D"),
        (lambda: TOKENS.columns([0.5]), IndexError, "columns .* float64"),
        (lambda: TOKENS.map(3), TypeError, "function must be callable, got 3"),
        (lambda: list(TOKENS.each_block(3)), TypeError, "function must be callable, got 3"),
        (lambda: TOKENS.take([0], axis=np.zeros(2)), ValueError, "axis=0"),
        (
            lambda: TokenArray(X, range(11), feature_names=["a", None, "b"]),
            TypeError,
            r"names\[1\]",
        ),
        (lambda: skact.Source().conflict("model"), TypeError, "other must be a Source"),
        (lambda: TokenArray.from_list(3), TypeError, "'samples'"),
        (lambda: TOKENS[:2].tokens_at([0]), IndexError, "positions must be 2 integers"),
        (lambda: TOKENS[:2].tokens_at(0), IndexError, "positions must be 2 integers"),
        (lambda: TOKENS[:2].tokens_at([0.0, 0.0]), IndexError, "positions .* float64"),
        (lambda: TOKENS.rows([[0]]), IndexError, "numbers must be 1-D integers, got 2-D"),
        (lambda: TOKENS.rows([0.5]), IndexError, "numbers .* float64"),
    ],
)
def test_bad_arguments_of_containers(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        (lambda: MeanPrototype().fit(X, Y, token_labels=[]), "token_labels has no samples"),
        (lambda: MeanPrototype().fit(X, Y, token_labels=[1] * 10), r"token_labels .* shape \(\)"),
        (lambda: MeanPrototype().fit(X, Y, token_labels=["a"] * 10), "token_labels .* dtype <U1"),
        (
            lambda: MeanPrototype().fit(X, Y, token_labels=[[1]] * 9 + [[[1, 0]]]),
            "token_labels: sample 9 has 2 features",
        ),
        (lambda: MeanPrototype().fit(X, TOKENS), "y must hold a label per sample, got a TokenArr"),
        (lambda: SuperActivator().fit(X, LayerStack({0: TOKENS})), "y .* got a LayerStack"),
        (lambda: SuperActivator().fit(X, [[1], [1, 0]] * 5), "y holds lists of labels"),
        (
            lambda: MeanPrototype().partial_fit(X, Y, classes=[5, 6]),
            r"y holds the classes \[0, 1\], which classes lacks: \[5, 6\]",
        ),
        (
            lambda: MeanPrototype().partial_fit(X, Y).partial_fit(X, Y + 5),
            r"\[5, 6\], which the first call of partial_fit did not know: \[0, 1\]",
        ),
        (lambda: LinearSeparator(Adam).fit(X, Y), r"'solver' .* LBFGS\(\), .* or Adam\(\). Got <"),
        (lambda: LinearSeparator(3).fit(X, Y), r"'solver' .* or Adam\(\). Got 3"),
        (
            lambda: SparseAutoencoder(training=AutoencoderTraining).fit(X),
            r"'training' .* an AutoencoderTraining\(\) or None. Got <",
        ),
        (
            lambda: ConceptLocalizer(1, 2, 3, method=RISE).fit(X, Y),
            r"'method' .* GradCAM\(\) or RISE\(\). Got <",
        ),
        (lambda: TransformerEmbedder("").fit(["a"]), "'model' .* Got ''"),
        (lambda: TransformerEmbedder(batch_size=True).fit(["a"]), "'batch_size' .* Got True"),
        (lambda: TransformerEmbedder(max_patches=True).fit(["a"]), "'max_patches' .* Got True"),
        (lambda: TransformerEmbedder().prepare(["a"], with_spans="x"), "'with_spans'"),
        (
            lambda: PromptDetector("", concepts=["a"]).fit(["x"], [1]),
            "model must be a Hugging Face",
        ),
        (lambda: FITTED.decide(np.full((2, 3), np.nan)), "pooled must be finite"),
        (lambda: FITTED.decide(np.full((2, 3), 1j)), "pooled .* complex"),
        (lambda: FITTED.decide(np.ones((2, 2))), r"pooled must have shape \(n_samples, 3\)"),
        (lambda: FITTED.pool([[1]]), r"'scores' .* a TokenArray\("),
        (lambda: SuperActivator().decide(np.ones((2, 3))), "not fitted yet"),
        (lambda: search(n_jobs=0).fit(X, Y), "'n_jobs' .* an int other than 0 or None. Got 0"),
        (lambda: search(cv=b"abc").fit(X, Y), "cv must be an int, a splitter, or list splits"),
        (lambda: search(param_grid=[]).fit(X, Y), "param_grid holds no candidate"),
        (lambda: search(param_grid=[3]).fit(X, Y), "param_grid is no grid"),
        (lambda: search().fit(X, Y, groups=3), "groups must have one entry per sample, got 3"),
        (lambda: search().fit(X, Y, groups=np.ones((10, 2))), r"groups must be 1-D, .* \(10, 2\)"),
        (lambda: search().fit(X, Y, [1]), "token_labels must have one entry per sample: got 1"),
        (
            lambda: CrossFitTransformer(MeanPrototype()).fit_transform(X, Y, 3),
            "token_labels must have one entry per sample, got 3",
        ),
        (lambda: TransformerEmbedder(3).fit(["a"]), "'model' .* a name, a folder or a loaded pair"),
        (
            lambda: TransformerEmbedder(store=3).fit(["a"]),
            r"'store' .* an ActivationStore\(",
        ),
        (
            lambda: PromptDetector(len, concepts=["a", "a"]).fit(["x", "y"], np.eye(2)),
            "concepts must differ .* 'a' comes twice",
        ),
        (lambda: SparseAutoencoder.from_pretrained(3), "'path' .* must be a path"),
        (lambda: SparseAutoencoder.from_pretrained("x", source=3), r"'source' .* Source\("),
    ],
)
def test_bad_arguments_of_estimators(fit, message):
    with pytest.raises((ValueError, TypeError), match=message) as raised:
        fit()
    assert "skact." not in str(raised.value).partition(" Got ")[0]


def test_no_constraint_names_a_private_module():
    for name in skact.__all__:
        thing = getattr(skact, name)
        rules = getattr(thing, "_parameter_constraints", constraints(thing))
        for rule in rules.values():
            for one in [] if rule == "no_validation" else rule:
                assert not (isinstance(one, type) and one.__module__.startswith("skact")), name


def test_a_path_is_text_or_a_path(tmp_path):
    assert arguments.PATH.is_satisfied_by(Path("x"))
    for path in (b"x", "a\0", "a\ud800b", Path("a\ud800b"), " "):
        assert not arguments.PATH.is_satisfied_by(path)
    assert arguments.PATH.is_satisfied_by(os.fsdecode(b"a\xff"))  # a name that is no text
    assert embed_to_store.__wrapped__ is not embed_to_store


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LinearSeparator(Adam(init=np.full((1, 3), np.nan))).fit(X, Y), "init must hold"),
        (lambda: LinearSeparator(Adam(init=[["a"] * 3])).fit(X, Y), "init must be an array of num"),
        (lambda: LinearSeparator(Adam(learning_rate=1e39)).fit(X, Y), "learning_rate=1e.39 is too"),
        (lambda: LinearSeparator(Adam(max_epochs=True)).fit(X, Y), "'max_epochs' .* Got True"),
        (lambda: TokenArray(X, range(11), feature_names="abc"), "feature_names must be a list"),
        (lambda: TokenArray(X, range(11), source="model"), "source must be a Source"),
        (lambda: skact.Source(block=2.5), "block must be an int or None, got 2.5"),
        (lambda: skact.Source(columns="rows"), "columns must be one of"),
        (lambda: skact.MaskFiles("abc", [1]), "'paths' parameter of MaskFiles must be a list"),
        (lambda: skact.MaskFiles([3], [1]), r"paths\[0\] must be a path, got 3"),
        (lambda: skact.MaskFiles(["a"], [999]), "values must hold pixel values .* got 999"),
        (lambda: skact.MaskFiles(["a"], [1.5]), "values must hold pixel values .* got 1.5"),
        (lambda: skact.MaskFiles(["a"], [1], sizes=[3]), r"sizes\[0\] must be \(height, width\)"),
        (lambda: skact.tail_threshold([1, np.nan], 0.5), "scores must be finite"),
        (lambda: skact.tail_threshold([1.0], []), r"delta must lie in \(0, 1\)"),
        (lambda: skact.weighted_f1_score([], []), "y_true must be"),
        (lambda: skact.check_tokens(None, X), "estimator must be an estimator, got None"),
        (lambda: skact.check_tokens(MeanPrototype(), np.full((3, 2), "a")), "X must hold numbers"),
        (lambda: skact.check_tokens(MeanPrototype(), X, reset=1), "reset must be True or False"),
    ],
)
def test_what_was_taken_without_a_word(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_what_looks_odd_and_is_right():
    assert skact.Source(block=np.int64(3)).block == 3
    assert len(skact.MaskFiles(np.array(["a", "b"]), np.arange(3), known={0, 1})) == 2
    assert TokenArray(X, range(11), feature_names=np.array(["a", "b", "c"])).n_features == 3
