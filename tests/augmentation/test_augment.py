"""Texts that models write: what passes, what is rejected and why, and what becomes of the rest."""

import os
import subprocess
import sys

import numpy as np
import pytest

from skact.augmentation import (
    EMBEDDING_PROMPTS,
    DraftWriter,
    embed_in_paragraphs,
    write_paragraphs,
)

TEXTS = [f"What lovely rain number {i}!" for i in range(6)]
LABELS = ["sarcasm", None, "sarcasm", ["joy", "sarcasm"], None, "joy"]
FAILURES = {
    "empty": lambda p: "  ",
    "not found": lambda p: "It was dry.",
    "more than once": lambda p: f"{p.sample} And again: {p.sample}",
    "nothing around it": lambda p: f'"{p.sample}"',
}
STEPS = {
    "exact": lambda text: text,
    "case": str.upper,
    "white space": lambda text: text.replace(" ", "\n "),
    "punctuation": lambda text: text.replace(" rain", ", rain"),
    "word overlap": lambda text: text.replace("lovely", "horrible"),
}


def quote(prompts):
    return [f"I had a look. {p.sample} Then I left." for p in prompts]


def test_originals_are_embedded_at_their_place():
    made = embed_in_paragraphs(TEXTS, LABELS, DraftWriter(quote))
    assert made.target_names == ["joy", "sarcasm"]
    assert made.target.tolist() == [[0, 1], [0, 0], [0, 1], [1, 1], [0, 0], [1, 0]]
    assert made.index.tolist() == list(range(6))
    for text, data, spans, row in zip(TEXTS, made.data, made.spans, made.target, strict=True):
        assert [span.label for span in spans] == [
            name for name, has in zip(made.target_names, row, strict=True) if has
        ]
        # The mark is text, which exact quotes include.
        assert all(data[span.start : span.end] == text for span in spans)
    assert len(set(made.groups)) == 6


@pytest.mark.parametrize("step", STEPS)
def test_the_step_that_found_an_original_is_told(step):
    def write(prompts):
        return [f"I had a look. {STEPS[step](p.sample)} Then I left." for p in prompts]

    made = embed_in_paragraphs(TEXTS, LABELS, DraftWriter(write), min_overlap=0.7)
    assert made.steps == [step] * 6
    report = made.report.set_index("outcome")
    assert (report.loc[step, "n"], report.loc[step, "of"], report.loc[step, "share"]) == (6, 6, 1)
    assert report["n"].sum() == 6


@pytest.mark.parametrize("reason", FAILURES)
def test_what_fails_is_asked_for_again_and_kept_with_its_reason(reason):
    asked = []

    def write(prompts):
        asked.append([p.sample for p in prompts])
        bad = len(asked) <= 2  # the first round, in two batches
        return [FAILURES[reason](p) for p in prompts] if bad else quote(prompts)

    made = embed_in_paragraphs(TEXTS, LABELS, DraftWriter(write, batch_size=4))
    assert asked == [TEXTS[:4], TEXTS[4:]] * 2
    assert made.steps == ["exact"] * 6
    rejected = made.drafts[~made.drafts["passed"]]
    assert rejected["outcome"].tolist() == [reason] * 6
    assert rejected["round"].tolist() == [0] * 6
    assert (made.drafts["round"] == 1).sum() == 6
    report = made.report.set_index("outcome")["n"]
    assert (report[reason], report["exact"], report["left out"]) == (6, 6, 0)


@pytest.mark.parametrize("structure", EMBEDDING_PROMPTS)
def test_what_never_passes_stands_among_contexts_or_is_left_out(structure):
    def write(prompts):
        return ["no" if "3" in p.sample else quote([p])[0] for p in prompts]

    writer = DraftWriter(write, n_drafts=2)
    only = {structure: 1.0}
    made = embed_in_paragraphs(TEXTS, LABELS, writer, structures=only)
    assert made.index.tolist() == [0, 1, 2, 4, 5]
    assert made.report.set_index("outcome").loc["left out", "n"] == 1
    assert len(made.drafts) == 7

    made = embed_in_paragraphs(TEXTS, LABELS, writer, structures=only, contexts=["A desk"])
    assert made.steps[3] == "fall-back"
    assert made.structures == [structure] * 6
    expected = {
        "start": f"{TEXTS[3]} A desk",
        "middle": f"A desk. {TEXTS[3]} A desk",
        "end": f"A desk. {TEXTS[3]}",
    }
    assert made.data[3] == expected[structure]
    assert [made.data[3][s.start : s.end] for s in made.spans[3]] == [TEXTS[3]] * 2


def test_structures_are_drawn_by_their_weights():
    texts = [f"text {i}" for i in range(400)]
    weights = {"start": 3, "end": 1}
    made = embed_in_paragraphs(texts, ["a"] * 400, DraftWriter(quote), structures=weights)
    assert set(made.structures) == {"start", "end"}
    assert 0.68 < np.mean(np.array(made.structures) == "start") < 0.82
    other = embed_in_paragraphs(
        texts, ["a"] * 400, DraftWriter(quote, random_state=1), structures=weights
    )
    assert made.structures != other.structures


def test_prompts_are_data():
    seen = []

    def write(prompts):
        seen.extend(p.text for p in prompts)
        return quote(prompts)

    prompts = {"only": "Quote {original} with {concept}."}
    embed_in_paragraphs(["so nice", "fine"], ["joy", None], DraftWriter(write), prompts=prompts)
    assert seen == ["Quote so nice with joy.", "Quote fine with joy."]


def test_equal_texts_are_one_group_and_given_groups_stay():
    texts = ["so nice", "fine", "so nice"]
    made = embed_in_paragraphs(texts, ["a"] * 3, DraftWriter(quote))
    assert made.groups[0] == made.groups[2] != made.groups[1]
    made = embed_in_paragraphs(texts, ["a"] * 3, DraftWriter(quote), groups=["x", "y", "y"])
    assert made.groups.tolist() == ["x", "y", "y"]


class Flaky:
    """Fails every third draft, and dies at one call."""

    def __init__(self, dies_at=None):
        self.calls, self.dies_at = 0, dies_at

    def __call__(self, prompts):
        self.calls += 1
        if self.calls == self.dies_at:
            raise ConnectionError("gone")
        return [
            "no" if (len(p.sample) + i + len(prompts)) % 3 == 0 else quote([p])[0]
            for i, p in enumerate(prompts)
        ]


@pytest.mark.parametrize("dies_at", [1, 2, 3, 4])
def test_a_run_that_was_broken_off_goes_on_where_it_was(tmp_path, dies_at):
    texts = [f"so nice {'x' * i}" for i in range(7)]

    def run(model, **more):
        writer = DraftWriter(model, batch_size=3, **more)
        return embed_in_paragraphs(texts, ["a"] * 7, writer, contexts=["A desk."])

    whole = Flaky()
    expected = run(whole)
    kept = {"journal": tmp_path / "drafts.jsonl", "revision": "1"}
    first = Flaky(dies_at)
    with pytest.raises(ConnectionError) as error:
        run(first, **kept)
    assert error.value.__notes__[0].startswith(f"{dies_at - 1} batches")
    second = Flaky()
    made = run(second, **kept)
    assert second.calls == whole.calls - (dies_at - 1)
    assert made.data == expected.data
    assert made.drafts.equals(expected.drafts)
    third = Flaky()
    assert run(third, **kept).data == expected.data
    assert third.calls == 0


KILLED = """
import os, sys
from skact.augmentation import DraftWriter, embed_in_paragraphs
calls = 0
def write(prompts):
    global calls
    calls += 1
    if calls == 3 and sys.argv[2] == "die":
        os.kill(os.getpid(), 9)
    return [f"I had a look. {p.sample}" for p in prompts]
writer = DraftWriter(write, batch_size=2, journal=sys.argv[1], revision="1")
made = embed_in_paragraphs([f"text {i}" for i in range(8)], ["a"] * 8, writer)
print(calls, len(made.data))
"""


@pytest.mark.skipif(os.name != "posix", reason="kills a process by a signal")
def test_a_kill_loses_one_batch(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "drafts.jsonl")]
    killed = subprocess.run([*command, "die"], capture_output=True, text=True)
    assert killed.returncode == -9
    again = subprocess.run([*command, "live"], capture_output=True, text=True, check=True)
    assert again.stdout.split() == ["2", "8"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"texts": ["other"]}, "texts or prompts"),
        ({"prompts": {"start": "Say {original}."}}, "texts or prompts"),
        ({"min_overlap": 0.5}, "min_overlap"),
        ({"batch_size": 1}, "batch_size"),
        ({"random_state": 5}, "random_state"),
        ({"revision": "2"}, "model or its settings"),
    ],
)
def test_a_journal_of_another_configuration_is_refused(tmp_path, change, words):
    def run(texts=("so nice",), prompts=None, min_overlap=0.8, **more):
        settings = {"journal": tmp_path / "drafts.jsonl", "revision": "1", **more}
        writer = DraftWriter(quote, **settings)
        options = {"prompts": prompts, "min_overlap": min_overlap}
        return embed_in_paragraphs(list(texts), ["a"], writer, **options)

    run()
    with pytest.raises(ValueError, match=words):
        run(**change)
    assert run().steps == ["exact"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"texts": []}, "no samples"),
        ({"texts": ["fine", "..."]}, r"texts\[1\]"),
        ({"texts": "fine"}, "single str"),
        ({"labels": ["a"]}, "one entry per sample"),
        ({"labels": ["a", 1]}, r"labels\[1\]"),
        ({"labels": [None, []]}, "at least one concept"),
        ({"prompts": {}}, "at least one prompt"),
        ({"prompts": {"start": "Say it."}}, r"must hold \{original\}"),
        ({"prompts": {"start": "Say {original} {tone}."}}, "may hold"),
        ({"prompts": {"start": "Say {original"}}, "literal braces"),
        ({"structures": {"above": 1}}, "names 'above'"),
        ({"structures": {"start": -1}}, "weight"),
        ({"structures": {"start": 0}}, "above 0"),
        ({"contexts": []}, "contexts has no samples"),
        ({"contexts": [""]}, r"contexts\[0\]"),
        ({"groups": [1]}, "one entry per sample"),
        ({"min_overlap": 0}, "'min_overlap'"),
        ({"writer": quote}, "'writer'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_asked(change, words):
    def write(prompts):
        raise AssertionError

    arguments = {"texts": ["so nice", "fine"], "labels": ["a", None], "writer": DraftWriter(write)}
    with pytest.raises(ValueError, match=words):
        embed_in_paragraphs(**(arguments | change))


def test_paragraphs_are_written_with_and_without_a_tag():
    n = 0

    def write(prompts):
        nonlocal n
        n += len(prompts)
        return [
            f"{p.sample} {n} {i}. <DRY_WIT>So nice.</DRY_WIT> I left."
            if "<DRY_WIT>" in p.text
            else f"{p.sample} {n} {i}."
            for i, p in enumerate(prompts)
        ]

    made = write_paragraphs("dry wit", 200, DraftWriter(write), topics=["rain", "snow"])
    assert 0.35 < made.target.mean() < 0.65
    assert set(made.topics) == {"rain", "snow"}
    assert all(text.startswith(topic) for text, topic in zip(made.data, made.topics, strict=True))
    for text, spans, (has,) in zip(made.data, made.spans, made.target, strict=True):
        assert [text[s.start : s.end] for s in spans] == ["So nice."] * has
        assert "<" not in text
        assert all(span.label == "dry wit" for span in spans)
    counts = made.report.set_index("outcome")["n"]
    assert counts["tagged"] + counts["untagged"] == 200


@pytest.mark.parametrize(
    ("draft", "share", "reason"),
    [
        ("", 1, "empty"),
        ("It rains.", 1, "no such tag"),
        ("<JOY>It rains.</JOY> So.", 1, "no such tag"),
        ("<WIT>Rain.</WIT> So. <WIT>Snow.</WIT>", 1, "other tags"),
        ("<WIT>Rain. So.", 1, "tags do not fit"),
        ("<WIT>...</WIT> So.", 1, "nothing in the tag"),
        ("<WIT>Rain.</WIT>", 1, "nothing around it"),
        ("It rains. <WIT>Rain.</WIT>", 0, "tagged"),
    ],
)
def test_paragraphs_are_rejected_with_a_reason(draft, share, reason):
    made = write_paragraphs("wit", 1, DraftWriter(lambda p: [draft], n_drafts=2), share=share)
    assert made.drafts["outcome"].tolist() == [reason] * 2
    assert (made.data, made.target.shape, made.spans) == ([], (0, 1), [])


def test_a_paragraph_comes_once():
    made = write_paragraphs("wit", 3, DraftWriter(lambda p: ["It rains."] * len(p)), share=0)
    assert made.data == ["It rains."]
    assert set(made.drafts["outcome"]) == {"untagged", "written before"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"concept": "123"}, "ASCII letter"),
        ({"n_samples": 0}, "'n_samples'"),
        ({"share": 2}, "'share'"),
        ({"prompts": {"with": "a"}}, "'with' and 'without'"),
        ({"topics": []}, "no samples"),
    ],
)
def test_bad_requests_for_paragraphs(arguments, words):
    right = {"concept": "wit", "n_samples": 1, "writer": DraftWriter(quote)}
    with pytest.raises(ValueError, match=words):
        write_paragraphs(**(right | arguments))
