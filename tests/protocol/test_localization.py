"""Maps judged as steps: by the localizer and the scores of their own rooms."""

from contextlib import nullcontext

import numpy as np
import pytest
from sklearn.utils import Bunch

from skact import TransformerEmbedder, make_shapes, shapes_model_path, token_f1_score
from skact.localization import METHODS, UNITS, ConceptLocalizer, Unit, faithfulness
from skact.metrics import keep_pairs
from skact.protocol import LOCALIZERS, Localization, MapJudge
from skact.protocol._localization import check_players, made_method, players_of

pytestmark = pytest.mark.filterwarnings("ignore:.*local target")


@pytest.fixture(scope="module")
def parts():
    data = make_shapes(60, random_state=0)
    data.split = np.resize(["train", "train", "train", "cal", "test"], 60)
    embedder = TransformerEmbedder(shapes_model_path(), -1)
    data.labels = embedder.align_masks(data.data, data.masks, data.target_names)
    data.tokens = embedder.transform(data.data)
    return data, embedder


@pytest.fixture(scope="module")
def judge(parts):
    return MapJudge(*parts, Localization(per_concept=1, points=2, masks=128), 0, 3)


def test_every_method_of_the_room_can_be_asked_for():
    assert set(LOCALIZERS) == set(METHODS)


def test_players_are_what_a_method_takes_away(parts, judge):
    data, embedder = parts
    image = [data.data[judge.test[0]]]
    for settings in (
        Localization(masks=40, unit="grid", cell_size=3),
        Localization(masks=40, unit="segments", n_segments=9),
    ):
        method = made_method("lime", settings)
        localizer = ConceptLocalizer(
            embedder, judge.concepts, judge.detector, method=method, target="global"
        )
        seen = [data.data[i] for i in judge.cal]
        localizer.fit(seen, data.target[judge.cal], data.labels[judge.cal])
        (own,) = localizer.transform(image)
        own_labels = data.labels[judge.test[:1]]
        most = players_of(own_labels.lengths, own_labels.shapes, settings)[0]
        assert 1 < len(np.unique(own[:, 0])) <= most < data.labels.lengths[0]
    lengths, shapes = data.labels.lengths, data.labels.shapes
    assert players_of(lengths, shapes, Localization()).tolist() == lengths.tolist()
    assert not hasattr(made_method("direct", Localization(unit="grid")), "unit")


def test_pairs_hold_the_concept_and_a_superactivator(parts, judge):
    data, _ = parts
    held, marked = data.labels.max(), judge.marks.max()
    for rows, pairs in ((judge.test, judge.pairs),):
        assert (data.split[rows] == "test").all()
        np.testing.assert_array_equal(pairs, held[rows] & marked[rows])
    assert (data.split[judge.cal] == "cal").all()
    about = judge.about()
    in_test = data.split == "test"
    assert about["positive_test_pairs"] == held[in_test].sum()
    without = (held & ~marked)[in_test].sum()
    assert about["positive_test_pairs_without_superactivator"] == without


def test_figures_are_those_of_the_localizer(parts, judge):
    data, embedder = parts
    made = judge.judge("direct")
    assert [line["target"] for line in made["table"]] == ["global", "local"]
    for line in made["table"]:
        localizer = ConceptLocalizer(
            embedder, judge.concepts, judge.detector, method="direct", target=line["target"]
        )
        seen, shown = ([data.data[i] for i in rows] for rows in (judge.cal, judge.test))
        localizer.fit(seen, data.target[judge.cal], data.labels[judge.cal])
        maps = localizer.transform(shown)
        marks = maps.map(lambda rows, cut=localizer.thresholds_: rows >= cut)
        truth = keep_pairs(data.labels[judge.test], judge.pairs)
        f1 = token_f1_score(truth, keep_pairs(marks, judge.pairs))
        assert line["f1"][0] == pytest.approx(f1, abs=1e-4)
        games = list(localizer.games(shown))
        gap = faithfulness(games, maps, pairs=judge.pairs, n_steps=2, random_state=0).gap
        assert line["gap"][0] == pytest.approx(np.nanmean(gap), abs=1e-4)
    one, other = (line["f1"][0] for line in made["table"])
    assert made["gain_of_local"]["f1"][0] == pytest.approx(other - one, abs=2e-4)


def test_a_judge_without_samples_says_so(parts):
    with pytest.raises(ValueError, match=r"of the 0 samples of cal .* masks=10 players, none has"):
        MapJudge(*parts, Localization(masks=10), 0)


def test_a_budget_that_leaves_out_all_samples_is_refused_with_one_that_does(parts):
    data, embedder = parts
    n = data.labels.lengths[0]
    said = rf"all samples of cal: .* masks=10, {n} at least .* masks={2 * n} or more"
    with pytest.raises(ValueError, match=said):
        check_players(Localization(masks=10), embedder, data)
    check_players(Localization(masks=2 * n), embedder, data)
    check_players(Localization(masks=10, unit="grid", cell_size=8), embedder, data)


@pytest.mark.parametrize("held", ["short", "long"])
def test_one_short_sample_with_a_concept_is_enough_wherever_it_stands(held):
    class Counter:
        def prepare(self, samples):
            return Bunch(n_tokens=[len(text.split()) for text in samples])

    texts = [*["no " * 40] * 99, "yes it is"] * 2
    target = np.array([[(text == "yes it is") == (held == "short")] for text in texts], int)
    data = Bunch(data=texts, split=np.repeat(["cal", "test"], 100), target=target)
    if held == "short":
        check_players(Localization(masks=6), Counter(), data)
    else:
        with pytest.raises(ValueError, match=r"all samples of cal: .*, 40 at least"):
            check_players(Localization(masks=6), Counter(), data)


def test_players_of_the_protocol_are_those_of_the_methods():
    for modality, units in UNITS.items():
        for unit in {unit for names in UNITS.values() for unit in names}:
            with nullcontext() if unit in units else pytest.raises(ValueError, match="is not for"):
                Unit(unit).check(modality)


def test_one_target_has_no_gain(parts):
    only = MapJudge(*parts, Localization(per_concept=1, points=2, targets=["local"]), 0, 2)
    made = only.judge("direct")
    assert [line["target"] for line in made["table"]] == ["local"]
    assert made["gain_of_local"] is None


def test_the_order_of_methods_changes_nothing(parts):
    settings = Localization(
        per_concept=1, points=2, targets=["global"], masks=40, unit="grid", cell_size=3
    )
    first, other = (MapJudge(*parts, settings, 0, 2) for _ in range(2))
    alone = first.judge("rise")["table"]
    other.about()
    after = other.judge("rise")["table"]
    for one in (*alone, *after):
        del one["seconds_per_sample"]
    assert alone == after
