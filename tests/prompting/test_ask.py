"""Every question about every sample is put once, and no answer is lost."""

import numpy as np
import pytest
from PIL import Image

from skact.prompting import Prompt, PromptDetector
from skact.prompting._answer_log import AnswerLog
from tests.prompting.word_search import CONCEPTS, TEXTS, Model, Y, detector


def test_what_the_model_is_told():
    model = Model()
    detector(model, prompt="{{{kind}}}: {concept}?").predict(["a {text} of joy"])
    first = model.batches[0][0]
    assert first == Prompt("a {text} of joy", "joy", "a {text} of joy\n\n{text}: joy?")
    model = Model()
    detector(model).predict(["x"])
    question = "Is the concept 'joy' present in this text? Answer Yes or No."
    assert model.batches[0][0].text == f"x\n\n{question}"


def test_batches_and_equal_samples():
    model = Model()
    found = detector(model, batch_size=3)
    predicted = found.predict(["joy", "food", "joy", "joy"])
    assert predicted.tolist() == [[1, 0], [0, 1], [1, 0], [1, 0]]
    assert [len(batch) for batch in model.batches] == [3, 1]
    assert sorted(set(model.asked)) == sorted(model.asked)


def test_images_reach_the_model_as_rgb(tmp_path):
    array = np.zeros((4, 6, 3), np.uint8)
    array[..., 0] = 255
    Image.fromarray(array).save(tmp_path / "red.png")
    blue = Image.new("RGBA", (5, 5), (0, 0, 255, 255))
    seen = []

    def model(prompts):
        seen.extend(prompts)
        return ["Yes" if p.sample.getpixel((0, 0))[0] == 255 else "No" for p in prompts]

    found = PromptDetector(model, concepts=["red"]).fit([array, blue], [1, 0])
    same = [array, tmp_path / "red.png", Image.fromarray(array), array.astype(np.float32) / 255]
    assert found.predict([*same, blue]).tolist() == [1, 1, 1, 1, 0]
    assert len(seen) == 2, "one image in four forms is asked about once"
    assert all(p.sample.mode == "RGB" for p in seen)
    assert seen[0].text == "Is the concept 'red' present in this image? Answer Yes or No."
    named = found.set_params(modality="image").predict([str(tmp_path / "red.png")])
    assert named.tolist() == [1]


def test_photographs_reach_the_model_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.new("RGB", (6, 4)).save(tmp_path / "photo.png", exif=exif)
    seen = []

    def model(prompts):
        seen.extend(prompts)
        return ["Yes"] * len(prompts)

    opened = Image.open(tmp_path / "photo.png")
    forms = [opened, tmp_path / "photo.png", np.zeros((6, 4, 3), np.uint8)]
    PromptDetector(model, concepts=["red"]).fit(forms, [1, 0, 1]).predict(forms)
    assert [p.sample.size for p in seen] == [(4, 6)]  # one image in three forms


def test_a_failure_loses_nothing(tmp_path):
    log = tmp_path / "answers.jsonl"
    params = {"batch_size": 2, "log": log, "revision": "word search"}
    broken = Model(fail_at=3)
    with pytest.raises(ConnectionError) as failure:
        detector(broken, **params).predict(TEXTS)
    assert "4 of 8 questions" in failure.value.__notes__[0]
    assert len(log.read_text().splitlines()) == 4
    model = Model()
    again = detector(model, **params)
    assert np.array_equal(again.predict(TEXTS), Y)
    assert len(model.asked) == 4
    assert set(model.asked).isdisjoint(broken.asked)
    again.predict(TEXTS)
    assert len(model.asked) == 4


def test_without_a_log_the_failure_says_how_to_keep_answers():
    with pytest.raises(ConnectionError) as failure:
        detector(Model(fail_at=2), batch_size=2).predict(TEXTS)
    assert "log=path" in failure.value.__notes__[0]


def test_the_batch_is_on_the_disk_before_the_next_question(tmp_path):
    log, lengths = tmp_path / "a.jsonl", []

    def model(prompts):
        lengths.append(len(AnswerLog(log).read()))
        return ["No"] * len(prompts)

    detector(model, log=log, revision="m", batch_size=3).predict(TEXTS)
    assert lengths == [0, 3, 6]


@pytest.mark.parametrize(
    "change",
    [
        {"revision": "another"},
        {"prompt": "Is '{concept}' in this {kind}? Yes or No."},
        {"concepts": ["joys", "foods"]},
    ],
    ids=str,
)
def test_a_log_gives_no_answer_of_another_question(tmp_path, change):
    params = {"log": tmp_path / "a.jsonl", "revision": "one"}
    detector(**params).predict(TEXTS)
    other = Model()
    detector(other, **{**params, **change}).predict(TEXTS)
    assert len(other.asked) == 8
    same = Model()
    detector(same, **params, batch_size=1, progress=False).predict(TEXTS[::-1])
    assert not same.asked


def test_a_log_gives_no_answer_about_another_sample(tmp_path):
    params = {"log": tmp_path / "a.jsonl", "revision": "one"}
    detector(**params).predict(["joy"])
    model = Model()
    detector(model, **params).predict(["joy", "joy "])
    assert {sample for sample, _ in model.asked} == {"joy "}
    # One pixel, or the same bytes in another shape.
    image = np.zeros((2, 4, 3), np.uint8)
    seen = []

    def look(prompts):
        seen.extend(prompts)
        return ["No"] * len(prompts)

    found = detector(look, **params)
    found.predict([image])
    changed = image.copy()
    changed[0, 0, 0] = 1
    found.predict([image, changed, image.reshape(4, 2, 3)])
    assert len(seen) == 3 * len(CONCEPTS)
