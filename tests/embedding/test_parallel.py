"""Several processes and one store: the same numbers, and nothing lost when one of them dies."""

import os
import signal

import joblib
import numpy as np
import pytest
import torch
from joblib.externals.loky import reusable_executor
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from tqdm.auto import tqdm

from skact import ConceptSearchCV, MeanPrototype, SuperActivator
from skact.embedding import TransformerEmbedder, _parallel
from skact.embedding._parallel import embed_to_store
from skact.store import ActivationStore
from tests import tiny_models

LAYERS = [0, 3]


def many_texts(n):
    words = ["the cat", "not happy", "angry", "sat on the thing", "😀"]
    return [f"{words[i % 5]} {'x' * (i % 23)} {i}" for i in range(n)]


@pytest.fixture(scope="module")
def cluster():
    """Two processes of dask, started and stopped here."""
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with (
        distributed.LocalCluster(processes=True, memory_limit=0, **options) as own,
        distributed.Client(own),
    ):
        yield own


@pytest.fixture(params=["loky", pytest.param("dask", marks=pytest.mark.nightly)])
def backend(request):
    """Two workers, by either backend of joblib."""
    if request.param == "dask":
        request.getfixturevalue("cluster")
        with joblib.parallel_config("dask"):
            yield "dask"
    else:
        with joblib.parallel_config("loky", n_jobs=2):
            yield "loky"


def test_workers_give_what_one_process_gives(backend, bert_folder, tmp_path):
    texts = many_texts(150)
    embedder = TransformerEmbedder(bert_folder, layer=LAYERS, batch_size=8)
    expected = embedder.transform(texts)
    store = ActivationStore(tmp_path / "store")
    first = embed_to_store(texts[:100] + texts[:20], embedder, store, n_jobs=None, chunk_size=16)
    assert (first.n_samples, first.n_embedded, first.n_found) == (100, 100, 0)
    # Shards of several owners: the work was shared.
    names = {name.split("-")[0] for name in os.listdir(tmp_path / "store" / "shards")}
    assert len(names) > 1
    again = embed_to_store(texts, embedder, str(store.path), n_jobs=2, chunk_size=16)
    assert (again.n_samples, again.n_embedded, again.n_found) == (150, 50, 100)
    assert again.seconds > 0
    never = TransformerEmbedder(bert_folder, layer=LAYERS, store=store)
    assert not never.set_params(store=store).missing(texts).any()
    found = never.transform(texts)
    for block in LAYERS:
        np.testing.assert_allclose(
            found.layer(block).flat(), expected.layer(block).flat(), atol=1e-5, rtol=1e-4
        )
    assert embed_to_store(texts, embedder, store, n_jobs=2).n_embedded == 0


def test_workers_keep_to_their_share_of_the_cores():
    threads = joblib.Parallel(2)(joblib.delayed(torch.get_num_threads)() for _ in range(2))
    share = max(1, joblib.cpu_count() // 2)
    assert max(threads) <= max(share, int(os.environ.get("OMP_NUM_THREADS", 1)))


def test_one_bar_for_all_workers_and_quiet_by_default(bert_folder, tmp_path, capsys):
    embedder = TransformerEmbedder(bert_folder, progress=True)
    texts = many_texts(40)
    embed_to_store(texts[:20], embedder, tmp_path, n_jobs=2)
    embed_to_store(texts[:30], embedder, tmp_path)
    assert capsys.readouterr().err == ""
    embed_to_store(texts[:36], embedder, tmp_path, n_jobs=2, progress=True)
    shown = capsys.readouterr().err
    assert "6/6" in shown
    assert "sample/s" in shown
    embed_to_store(texts, embedder, tmp_path, progress=True)
    assert "token/s" in capsys.readouterr().err


def test_one_process_embeds_in_this_one(tmp_path, texts):
    pair = tiny_models.text_pair("gpt2")
    summary = embed_to_store(texts + texts, TransformerEmbedder(pair), tmp_path)
    assert (summary.n_samples, summary.n_embedded, summary.n_found) == (5, 5, 0)
    summary = embed_to_store(texts, TransformerEmbedder(pair), tmp_path, n_jobs=1)
    assert (summary.n_embedded, summary.n_found) == (0, 5)


def test_what_cannot_work_is_refused_before_any_work(texts, tmp_path):
    embedder = TransformerEmbedder(tiny_models.text_pair("gpt2"))
    with pytest.raises(ValueError, match="loaded pair without a name"):
        embed_to_store(texts, embedder, tmp_path / "a", n_jobs=2)
    with pytest.raises(ValueError, match=r"'chunk_size' parameter of embed_to_store .* Got 0"):
        embed_to_store(texts, embedder, tmp_path / "a", chunk_size=0)
    with pytest.raises(TypeError, match="sample 5 must be a string, got int"):
        embed_to_store([*texts, 3], embedder, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_workers_that_embed_something_else_are_found_out(bert_folder, tmp_path, monkeypatch, texts):
    other = TransformerEmbedder(bert_folder, layer=1)

    def wrong(samples, todo, embedder, n_jobs, chunk_size, progress):
        other.set_params(store=embedder.store)
        return other._in_store(samples).fill().n_embedded, []

    monkeypatch.setattr(_parallel, "_share_out", wrong)
    with pytest.raises(RuntimeError, match="the store lacks 5"):
        embed_to_store(texts, TransformerEmbedder(bert_folder), tmp_path, n_jobs=2)


@pytest.mark.parametrize("search", [GridSearchCV, ConceptSearchCV])
def test_searches_on_raw_texts_with_a_store_run_under_backends(
    search, backend, bert_folder, tmp_path
):
    texts = many_texts(30)
    y = np.array([[i % 5 == 0, i % 2 == 0] for i in range(30)], int)
    store = ActivationStore(tmp_path, layers=LAYERS)
    embedder = TransformerEmbedder(bert_folder, layer=LAYERS)
    assert embed_to_store(texts, embedder, store).n_embedded == 30
    pipe = Pipeline(
        [
            ("embed", TransformerEmbedder(bert_folder, store=store)),
            ("concepts", MeanPrototype()),
            ("detect", SuperActivator()),
        ]
    )
    grid = {"embed__layer": LAYERS, "detect__delta": [0.2, 0.8]}
    options = {"scoring": "f1_macro", "error_score": "raise"} if search is GridSearchCV else {}
    found = search(pipe, grid, cv=2, **options).fit(texts, y)
    with joblib.parallel_config("sequential"):
        expected = search(pipe, grid, cv=2, **options).fit(texts, y)
    np.testing.assert_array_equal(found.predict(texts), expected.predict(texts))
    if search is GridSearchCV:
        scores = "mean_test_score"
        np.testing.assert_array_equal(found.cv_results_[scores], expected.cv_results_[scores])
        assert len(set(found.cv_results_[scores])) > 1


def test_an_error_in_a_worker_says_where_and_how_much_is_done(bert_folder, tmp_path):
    texts = [*many_texts(9), "  "]
    embedder = TransformerEmbedder(bert_folder, batch_size=5)
    with (
        joblib.parallel_config("threading", n_jobs=2),
        pytest.raises(ValueError, match="has no token left") as got,
    ):
        embed_to_store(texts, embedder, tmp_path, chunk_size=5)
    notes = " ".join(got.value.__notes__)
    assert "within its chunk" in notes
    assert "of 10 distinct samples are in the store" in notes


# The last test, so that the workers of the others serve it and need not be started again.
def test_a_killed_worker_is_reported_and_the_next_call_goes_on(bert_folder, tmp_path, monkeypatch):
    texts = many_texts(128)
    embedder = TransformerEmbedder(bert_folder, layer=LAYERS, batch_size=4)
    store = ActivationStore(tmp_path)
    count = tqdm.update

    def kill_one(bar, n=1):
        if bar.total == len(texts):  # not a bar of the embedder
            os.kill(next(iter(reusable_executor._executor._processes)), signal.SIGKILL)
        return count(bar, n)

    monkeypatch.setattr(tqdm, "update", kill_one)
    with pytest.raises(RuntimeError, match=r"worker process died.* of 128 distinct .*again") as got:
        embed_to_store(texts, embedder, store, n_jobs=2, chunk_size=4)
    monkeypatch.undo()
    n_done = 128 - int(embedder.set_params(store=store).missing(texts).sum())
    assert 0 < n_done < 128
    assert f"{n_done} of 128" in str(got.value)
    rest = embed_to_store(texts, embedder, store)
    assert (rest.n_embedded, rest.n_found) == (128 - n_done, n_done)
    assert store.verify() == []
    expected = embedder.transform(texts)
    found = TransformerEmbedder(bert_folder, layer=LAYERS, store=store).transform(texts)
    np.testing.assert_allclose(
        found.layer(3).flat(), expected.layer(3).flat(), atol=1e-5, rtol=1e-4
    )


@pytest.mark.nightly
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_what_workers_notice_is_said_once_here(bert_folder, tmp_path, n_jobs):
    texts = many_texts(40)
    found = TransformerEmbedder(bert_folder, layer=0, max_length=5)
    n_cut = int(found.truncated(texts).sum())
    assert 0 < n_cut < 40
    with pytest.warns(UserWarning, match=f"{n_cut} of 40 texts were too long") as caught:
        embed_to_store(texts, found, tmp_path / "store", n_jobs=n_jobs, chunk_size=10)
    assert len(caught) == 1
