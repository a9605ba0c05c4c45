"""Samples are embedded and prepared once in a call, and files are opened once."""

from collections import Counter

import numpy as np
import PIL.Image
import pytest
from sklearn.base import clone

from skact.embedding._reader import Reader
from skact.localization import METHODS
from skact.localization import _inputs as inputs
from tests.watching import watch

SETTINGS = {"n_masks": 66, "n_steps": 1}
N = 2
Y = np.ones((N, 6), int)


@pytest.fixture(scope="module")
def files(shapes, tmp_path_factory):
    """Files of the images that are mapped."""
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / f"{i}.png" for i in range(N)]
    for path, image in zip(paths, shapes.samples, strict=False):
        (image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)).save(path)
    return paths


@pytest.fixture
def opened(monkeypatch):
    """How often each file was opened."""
    count = Counter()
    real = PIL.Image.open

    def counting(path, *args, **kwargs):
        count[path] += 1
        return real(path, *args, **kwargs)

    monkeypatch.setattr(PIL.Image, "open", counting)
    return count


@pytest.fixture
def embedded(shapes):
    """How many samples went through the model in batches of the embedder, or as copies."""
    sizes = []
    base = shapes.embedder._load().base
    handle = watch(
        base,
        lambda module, args, kwargs: sizes.append(len(kwargs["pixel_values"])),
        with_kwargs=True,
    )
    yield sizes
    handle.remove()


@pytest.mark.parametrize(
    ("method", "baseline"), [*((method, "mean") for method in METHODS), ("rise", "blur")]
)
def test_each_file_is_opened_once_in_a_call(method, baseline, shapes, files, opened):
    localizer = shapes.localizer(method, baseline=baseline, **SETTINGS)
    calls = {
        "fit": lambda: localizer.fit(files, Y),
        "transform": lambda: localizer.transform(files),
        "predict": lambda: localizer.predict(files),
        "score": lambda: localizer.score(files, Y),
        "games": lambda: list(localizer.games(files)),
    }
    if method == "shapiq":
        calls["interactions"] = lambda: list(localizer.interactions(files))
    for name, call in calls.items():
        opened.clear()
        call()
        assert opened == dict.fromkeys(files, 1), name


def test_each_sample_is_embedded_once_in_a_call(shapes, embedded):
    localizer = shapes.localizer("direct")
    for call in (
        lambda: localizer.fit(shapes.samples, shapes.y),
        lambda: localizer.transform(shapes.samples),
        lambda: localizer.predict(shapes.samples),
        lambda: localizer.score(shapes.samples, shapes.y),
    ):
        embedded.clear()
        call()
        assert sum(embedded) == len(shapes.samples)


def test_texts_are_tokenised_once_more_than_by_the_embedder(texts, monkeypatch):
    """Once for embedding, and once for all of the perturbation, checks included."""
    seen = []
    real = Reader.prepare

    def counting(self, samples, **options):
        seen.append(len(samples))
        return real(self, samples, **options)

    for method, unit, n_times in (("rise", "token", 2), ("rise", "word", 2), ("direct", None, 1)):
        localizer = texts.fitted(method, unit=unit)
        monkeypatch.setattr(Reader, "prepare", counting)
        seen.clear()
        localizer.transform(texts.samples)
        assert seen == [len(texts.samples)] * n_times
        monkeypatch.undo()


@pytest.mark.parametrize("method", ["rise", "full_grad", "direct"])
def test_files_that_do_not_fit_are_opened_when_their_turn_comes(
    method, shapes, files, opened, monkeypatch
):
    localizer = shapes.fitted(method, **SETTINGS)
    expected = localizer.transform(files)
    # There is room as long as some is left, so for one image.
    monkeypatch.setattr(inputs, "_ROOM", 1)
    opened.clear()
    np.testing.assert_array_equal(localizer.transform(files).flat(), expected.flat())
    assert opened[files[0]] == 1
    # Geometry and pixels for the embedder, and once for the method.
    assert {opened[path] for path in files[1:]} == {2 if method == "direct" else 3}


def test_what_is_stored_is_not_opened_to_be_embedded(shapes, files, opened, tmp_path):
    localizer = shapes.fitted("rise", **SETTINGS)
    expected = localizer.transform(files)
    stored = clone(localizer).set_params(
        embedder=clone(shapes.embedder).set_params(store=tmp_path / "store")
    )
    stored.fit(files, Y)
    opened.clear()
    found = stored.transform(files)
    assert opened == dict.fromkeys(files, 1)
    np.testing.assert_allclose(found.flat(), expected.flat(), atol=1e-6)
    opened.clear()
    stored.set_params(method="direct").transform(files)
    assert not opened


def test_a_file_that_is_no_image_is_named(shapes, files, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    for method in ("direct", "rise"):
        with pytest.raises(ValueError, match=r"sample 1: the image .*bad.png' cannot be read"):
            shapes.fitted(method, **SETTINGS).transform([files[0], bad])
