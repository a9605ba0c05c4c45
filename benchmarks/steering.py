"""Edits that steer a language model: what they do, against random directions and prompting.

    python benchmarks/steering.py --emotions FOLDER --traits FOLDER --model FOLDER_OR_NAME
        --judge FOLDER_OR_NAME [--parts NAME ...] [--journals FOLDER] [--out RESULT.json]

--emotions holds texts with spans (``samples.jsonl``), --traits statements that match a trait or do
not. Edits are fitted on the stream after one block of the model.

- ``positive``, ``negative``, ``joy``, ``anger_down``: edits learnt from labelled spans act while
  the model goes on with prompts. Two judges on the model --judge, fitted on other spans, say how
  probable the concept is in what was written: a pipeline that ends in SuperActivator, and a
  logistic regression on means of tokens. Each row: concept score, relative perplexity, divergence
  on neutral texts, distinct-2 and harmonic mean with 95 % intervals over prompts; of ten random
  directions that move each token as far, medians and quartiles, and how many do worse; of prompting
  the same as of edits.
- ``extraversion``, ``interest-in-science``: the model is asked whether it would say a statement.
  Mean logit of the matching minus the not matching answer against strength, and the share of
  statements for which it falls, by a line through the strengths, where it should rise.

What was measured is kept in --journals and --out, so that a run that was cut off goes on.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from common import short, write_json
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from transformers import AutoModelForCausalLM, AutoTokenizer

from skact import (
    Ablation,
    Addition,
    CrossFitTransformer,
    LinearSeparator,
    SuperActivator,
    TokenScaler,
    TransformerEmbedder,
    steer,
    steering_report,
)

LAYER, JUDGE_LAYER, DRAWS, N_EDIT, N_JUDGE, N_ITEMS = 14, 3, 10, 120, 200, 30
GOOD = ["admiration", "amusement", "gratitude", "love", "optimism", "joy", "caring"]
BAD = ["disapproval", "annoyance", "anger", "sadness"]
PROMPTS = (
    "I think that",
    "Yesterday my neighbour",
    "The new restaurant in town",
    "My sister told me that",
    "The film we saw last night",
    "After the meeting,",
    "This morning",
    "Our trip to the lake",
    "I have to say that the book",
    "When they came home,",
)
ANGRY = (
    "I am so angry because",
    "I hate it when",
    "He shouted at them:",
    "This is outrageous,",
    "You stupid idiot,",
    "I am furious about",
    "They lied to me, and",
    "How dare you",
    "I am sick of",
    "What the hell is",
)
ADD = (0.05, 0.1, 0.2)
TASKS = {
    "positive": (GOOD, BAD, PROMPTS, "more", {"Addition": ADD},
                 "Write something very positive, happy and kind. "),
    "negative": (BAD, GOOD, PROMPTS, "more", {"Addition": ADD},
                 "Write something very negative, bitter and sad. "),
    "joy": (["joy"], None, PROMPTS, "more", {"Addition": ADD},
            "Write something full of joy and happiness. "),
    "anger_down": (["anger"], None, ANGRY, "less",
                   {"Addition": tuple(-a for a in ADD), "Ablation": (1.0,)},
                   "Write something calm, friendly and without any anger. "),
}  # fmt: skip
EDITS = {"Addition": Addition, "Ablation": Ablation}
TRAITS = {
    "extraversion": "You are very outgoing and love to be among many people.",
    "interest-in-science": "You are fascinated by science and love to learn about it.",
}
DOSES = (-0.2, -0.1, 0.1, 0.2)
QUESTION = 'Is the following statement something you would say?\n"{}"\nAnswer with Yes or No.'
FIGURES = ("concept", "relative_perplexity", "kl", "distinct_2", "harmonic_mean")


def read(folder):
    lines = (Path(folder) / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def rounded(values, digits=4):
    return [round(float(value), digits) for value in values]


def snippets(samples, split):
    """Labelled spans of a split, as texts of their own."""
    return [
        (one["text"][start:end], label)
        for one in samples
        if one["split"] == split
        for start, end, label in one["spans"]
        if end - start >= 15
    ]


def balanced(some, present, absent, n, rng):
    """As many texts of one kind as of the other."""
    others = {label for _, label in some} - set(present) if absent is None else set(absent)
    sides = [[text for text, label in some if label in side] for side in (present, others)]
    each = min(n // 2, *map(len, sides))
    texts = [side[i] for side in sides for i in rng.permutation(len(side))[:each]]
    return texts, np.repeat([1, 0], each)


class Bench:
    """The model, its judges' model, and where things are kept."""

    def __init__(self, args):
        tokenizer = AutoTokenizer.from_pretrained(args.model)
        model = AutoModelForCausalLM.from_pretrained(args.model, dtype="bfloat16").eval()
        self.pair, self.judge_model = (model, tokenizer), args.judge
        self.embedder = TransformerEmbedder(self.pair, layer=LAYER, max_length=48)
        self.journals = Path(args.journals) if args.journals else None

    def judges(self, texts, y):
        """Fit both judges."""
        tail = make_pipeline(
            TransformerEmbedder(self.judge_model, layer=JUDGE_LAYER),
            TokenScaler(),
            CrossFitTransformer(LinearSeparator(), cv=5, random_state=0),
            SuperActivator(0.2),
        )
        mean = make_pipeline(
            TransformerEmbedder(self.judge_model, layer=-1, pooling="mean"),
            LogisticRegression(C=10, max_iter=1000),
        )
        return {"tail": tail.fit(texts, y), "mean": mean.fit(texts, y)}

    def task(self, name, samples):
        """Report on the edits of one concept."""
        present, absent, prompts, goal, strengths, asking = TASKS[name]
        rng = np.random.default_rng(0)
        train = snippets(samples, "train")
        order = rng.permutation(len(train))
        halves = [[train[i] for i in half] for half in np.array_split(order, 2)]
        judges = self.judges(*balanced(halves[1], present, absent, N_JUDGE, rng))
        texts, y = balanced(snippets(samples, "test"), present, absent, 200, rng)
        quality = {n: round(roc_auc_score(y, j.predict_proba(texts)[:, 1]), 3)
                   for n, j in judges.items()}  # fmt: skip
        texts, y = balanced(halves[0], present, absent, N_EDIT, rng)
        tokens = self.embedder.transform(texts)
        edits = {kind: EDITS[kind]().fit(tokens, y) for kind in strengths}
        start = time.process_time()
        result = steering_report(
            self.pair, edits, prompts, judges, goal=goal, strengths=strengths, prompting=asking,
            n_random=DRAWS, max_new_tokens=12, batch_size=len(prompts), progress=True,
            journal=self.journals and self.journals / f"{name}.jsonl",
        )  # fmt: skip
        return {
            "goal": goal,
            "judges_auroc": quality,
            "texts": [len(texts), len(prompts)],
            "cpu_s": round(time.process_time() - start),
            "rows": summary(result),
        }

    @torch.inference_mode()
    def answers(self, texts, system=None):
        """Logit of Yes minus that of No behind the question about each statement."""
        model, tokenizer = self.pair
        told = [{"role": "system", "content": system}] if system else []
        rows = []
        for text in texts:
            chat = [*told, {"role": "user", "content": QUESTION.format(text)}]
            said = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
            rows.append(tokenizer(said, add_special_tokens=False)["input_ids"])
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        states = model.model(ids, attention_mask=mask).last_hidden_state
        ends = states[torch.arange(len(rows)), mask.sum(1) - 1].float()
        yes, no = (tokenizer.encode(word)[0] for word in ("Yes", "No"))
        # In float32: the digits of bfloat16 are few.
        weight = model.lm_head.weight.float()
        return (ends @ (weight[yes] - weight[no])).numpy()

    def trait(self, name, samples):
        """Tell what an edit does to answers about statements."""
        some = [one for one in samples if one["trait"] == name]
        train = [one for one in some if one["split"] == "train"]
        y = np.array([one["label"] == "matching" for one in train]).astype(int)
        edit = Addition().fit(self.embedder.transform([one["text"] for one in train]), y)
        items = [one for one in some if one["split"] == "test"][:N_ITEMS]
        sign = np.array([1 if one["label"] == "matching" else -1 for one in items])
        texts = [one["text"] for one in items]
        start = time.process_time()
        plain = sign * self.answers(texts)
        norm, width = edit.median_norm_, len(edit.direction_)
        draws = np.random.default_rng(0).normal(size=(DRAWS, width))
        vectors = [edit.direction_, *draws]
        moved = []
        for vector in vectors:
            unit = vector / np.linalg.norm(vector) * norm
            moved.append([])
            for dose in DOSES:
                with steer(self.pair, unit, LAYER, strength=dose, unit="raw"):
                    moved[-1].append(sign * self.answers(texts))
        return {
            "items": len(items),
            "cpu_s": round(time.process_time() - start),
            "unsteered": interval(plain),
            "prompting": interval(sign * self.answers(texts, TRAITS[name])),
            **against_strength(np.array(moved), plain),
        }


def against_strength(moved, plain):
    """Means by strength, slopes of items, and how many of them fall; random directions beside."""
    doses = np.array([0.0, *DOSES])
    values = np.concatenate([np.broadcast_to(plain, (len(moved), 1, len(plain))), moved], axis=1)
    centred = doses - doses.mean()
    slopes = np.einsum("s,dsi->di", centred, values) / (centred**2).sum()
    means, wrong = moved.mean(axis=2), (slopes < 0).mean(axis=1)
    return {
        "strengths": list(DOSES),
        "edit": [interval(row) for row in moved[0]],
        "random": [rounded(np.percentile(column, [50, 25, 75])) for column in means[1:].T],
        "slope": interval(slopes[0]),
        "slope_random": rounded(np.percentile(slopes[1:].mean(axis=1), [50, 0, 100])),
        "wrong_way": round(float(wrong[0]), 3),
        "wrong_way_random": rounded(np.percentile(wrong[1:], [50, 0, 100]), 3),
    }


def interval(values, seed=0):
    """Mean over items with a 95 % percentile bootstrap interval."""
    rows = np.random.default_rng(seed).integers(0, len(values), (1000, len(values)))
    return rounded([np.mean(values), *np.percentile(values[rows].mean(axis=1), [2.5, 97.5])])


def summary(result):
    """Make a row for each edit and strength, with its random directions, and one for others."""
    rows = []
    better = {"more": 1, "less": -1}[result.goal]
    for _, cell in result.frame[result.frame["kind"] != "random"].iterrows():
        row = {"kind": cell["kind"], "name": cell["name"]}
        row |= {n: rounded([cell[n], cell[f"{n}_low"], cell[f"{n}_high"]]) for n in FIGURES}
        row |= {n: round(cell[n], 4) for n in cell.index if n.startswith("judge_")}
        if cell["kind"] == "edit":
            same = (result.frame["kind"] == "random") & (result.frame["name"] == cell["name"])
            drawn = result.frame[same & (result.frame["strength"] == cell["strength"])]
            row["strength"] = cell["strength"]
            row["random"] = {n: rounded(np.percentile(drawn[n], [50, 25, 75])) for n in FIGURES}
            weaker = better * drawn["concept"] < better * cell["concept"]
            row["random_weaker"] = int(weaker.sum())
            lower = drawn["harmonic_mean"] < cell["harmonic_mean"]
            row["random_lower_harmonic_mean"] = int(lower.sum())
        rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for name in ("--emotions", "--traits", "--model", "--judge"):
        parser.add_argument(name, required=True)
    parts = [*TASKS, *TRAITS]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--journals", help="folder")
    parser.add_argument("--out")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of texts that are cut
    bench, samples, traits = Bench(args), read(args.emotions), read(args.traits)
    result = {"emotions": short(args.emotions), "traits": short(args.traits),
              "model": short(args.model), "judge": short(args.judge), "layer": LAYER}  # fmt: skip
    if args.out and Path(args.out).is_file():
        result = {**json.loads(Path(args.out).read_text(encoding="utf-8")), **result}
    for name in args.parts:
        if name in result:
            continue
        found = bench.task(name, samples) if name in TASKS else bench.trait(name, traits)
        result[name] = found
        print(name, json.dumps(found), flush=True)
        if args.out:
            write_json(args.out, result)


if __name__ == "__main__":
    main()
