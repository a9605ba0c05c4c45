"""Head Pursuit on a language model: heads about lists of words, and what scaling them does.

    python benchmarks/head_pursuit.py --data FOLDER --model FOLDER_OR_NAME
        [--lists NAME ...] [--from-block BLOCK] [--parts edits time] [--time-heads N]
        [--out RESULT.json]

FOLDER holds texts (``samples.jsonl``). Heads are chosen for each list of words by what they write
on some texts; all else is measured on others.

- Explained: mean explained share of the top heads on the other texts, beside that of random heads
  of the same blocks (10 draws: median and quartiles), and of the same heads by random lists of as
  many tokens.
- Edits: the top 3, 8 and 16 heads are scaled by -1 and by 5. Change of the log of the probability
  that the next word is of the list, mean over prompts in which it may well be (with a 95 %
  bootstrap interval over prompts), and mean KL divergence of the next token on neutral texts
  without a word of the list; beside that of random heads (10 draws), and of the heads with the
  largest mean logits of the words, which need no pursuit.
- Time: seconds of a fit on 256 samples, of all heads for 200 random tokens, and of all or
  --time-heads heads for the whole vocabulary.

Heads are those of all blocks, or from --from-block on. What another run has put into the file --out
is kept.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from common import short, write_json
from sklearn.base import clone
from transformers import AutoModelForCausalLM, AutoTokenizer

from skact import HeadPursuit, TransformerEmbedder, head_writes, random_heads, scale_heads

TOPS, FACTORS, DRAWS, N_FIT, N_TEST, N_NEUTRAL, LENGTH = (
    (3, 8, 16),
    (-1.0, 5.0),
    10,
    256,
    128,
    4,
    24,
)
WORDS = {
    "countries": "France Germany Italy Spain England Scotland Ireland Russia China Japan India "
    "Brazil Mexico Canada Australia Egypt Israel Iran Iraq Syria Turkey Greece Poland "
    "Sweden Norway Denmark Finland Switzerland Austria Belgium Portugal Hungary "
    "Ukraine Pakistan Nigeria Kenya Argentina Chile Cuba Vietnam Thailand Indonesia "
    "Singapore Korea",
    "colours": "red blue green yellow orange purple pink brown black white gray grey gold silver "
    "violet scarlet crimson beige turquoise",
    "months": "January February March April May June July August September October November "
    "December",
    "numbers": "one two three four five six seven eight nine ten eleven twelve thirteen fifteen "
    "twenty thirty forty fifty sixty seventy eighty hundred thousand million billion",
    "positive": "good great excellent wonderful beautiful happy amazing fantastic perfect "
    "brilliant delightful pleasant superb nice lovely awesome joyful glad fun "
    "charming",
    "negative": "bad terrible awful horrible ugly sad angry poor worst disgusting boring "
    "miserable nasty dreadful painful stupid annoying tragic cruel disappointing",
}
FRAMES = (
    "The film was|"
    "Everything about that day was|"
    "The food tasted|"
    "The service was|"
    "I think this book is|"
    "The weather has been|"
    "To be honest, the game was|"
    "My first impression of it was"
)
PROMPTS = {
    "countries": "She was born in|They moved to|He spent the summer in|The ambassador of|"
    "My family comes from|Our flight landed in|The best wine is made in|The president of",
    "colours": "Her dress was bright|The car is painted|My favourite colour is|Her eyes are|"
    "The flag is white and|The walls of the room are|The leaves turned|He wore a shirt that was",
    "months": "The meeting takes place in|She was born in the month of|It happened in late|"
    "School starts in|The festival is held every|We got married in|The contract ends in early|"
    "The shop closes at the end of",
    "numbers": "The recipe needs|They have been married for|The room has|He waited for|"
    "She has a family of|Count with me: one, two, three,|The team won by|I bought",
    "positive": FRAMES,
    "negative": FRAMES,
}


def rounded(values, digits=4):
    return [round(float(v), digits) for v in values]


def quartiles(values):
    return rounded(np.percentile(values, [50, 25, 75]))


def interval(values, seed=0):
    """Mean over prompts with a 95 % percentile bootstrap interval."""
    rows = np.random.default_rng(seed).integers(0, len(values), (1000, len(values)))
    return rounded([np.mean(values), *np.percentile(values[rows].mean(axis=1), [2.5, 97.5])])


class Judge:
    """Next-token distributions of a model, with the token before texts that takes the sink."""

    def __init__(self, model, tokenizer, sink):
        self.model, self.tokenizer = model, tokenizer
        self.start = [] if sink is None else [sink]

    @torch.inference_mode()
    def __call__(self, texts, last):
        """Log-probabilities behind each text, or at every position."""
        rows = [self.start + self.tokenizer(t)["input_ids"][:LENGTH] for t in texts]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        ends = torch.tensor([len(row) for row in rows])
        states = self.model.model(ids).last_hidden_state
        if last:
            states = states[torch.arange(len(rows)), ends - 1]
        else:
            states = states[(torch.arange(longest) < ends[:, None]) & (torch.arange(longest) > 0)]
        return self.model.lm_head(states).log_softmax(dim=-1)


class Edits:
    """What scaling heads does to a list of words and to neutral texts."""

    def __init__(self, judge, embedder, prompts, ids, neutral):
        self.judge, self.embedder = judge, embedder
        self.prompts, self.ids, self.neutral = prompts, ids, neutral
        self.before, self.plain = self._mass(), judge(neutral, last=False)

    def _mass(self):
        return self.judge(self.prompts, last=True)[:, self.ids].logsumexp(dim=-1)

    def __call__(self, heads, factor):
        """Change of the log-probability of the words for each prompt, and KL on neutral texts."""
        with scale_heads(self.embedder, heads, factor):
            moved = (self._mass() - self.before).numpy()
            after = self.judge(self.neutral, last=False)
        kl = (self.plain.exp() * (self.plain - after)).sum(dim=-1).mean()
        return moved, float(kl)

    def row(self, heads, factor):
        """One row of the result."""
        moved, kl = self(heads, factor)
        return {"log_probability": interval(moved), "kl": round(kl, 4)}


def lens_ranking(writes, rows):
    """All heads, those with the largest mean logit of the words first."""
    mean = rows.mean(axis=0)
    logits = {key: float(tokens.mean().mean(axis=0) @ mean) for key, tokens in writes.items()}
    return np.array(sorted(logits, key=logits.get, reverse=True))


def places(pursuit, heads):
    """Rows and columns of heads among the scores."""
    return np.searchsorted(pursuit.layers_, heads[:, 0]), heads[:, 1]


def token(tokenizer, word):
    """As HeadPursuit finds it: behind a blank, or else by itself."""
    spelt = (tokenizer.encode(text) for text in (f" {word}", word))
    return next(ids for ids in spelt if len(ids) == 1)[0]


def measure(name, embedder, judge, stacks, texts):
    words = WORDS[name].split()
    pursuit = HeadPursuit(
        words=words, embedder=embedder, multi_token="skip", n_random_lists=DRAWS, random_state=0
    )
    chosen = pursuit.fit(stacks[0])
    held = HeadPursuit(
        words=chosen.words_.tolist(), embedder=embedder, n_random_lists=DRAWS, random_state=1
    ).fit(stacks[1])
    every = unembedding(judge.model)
    ids = [token(judge.tokenizer, word) for word in chosen.words_]
    lens = lens_ranking(head_writes(stacks[0], embedder), every[ids])
    lower = {w.lower() for w in words}
    neutral = [t for t in texts if not lower & set(t.lower().split())][:N_NEUTRAL]
    edits = Edits(judge, embedder, PROMPTS[name].split("|"), ids, neutral)
    found = {
        "words": chosen.words_.tolist(),
        "top_heads": [tuple(map(int, h)) for h in chosen.ranking_[: max(TOPS)]],
        "log_probability_before": interval(edits.before.numpy()),
        "explained": {},
        "edits": [],
    }
    for top in TOPS:
        heads = chosen.ranking_[:top]
        draws = [random_heads(chosen.ranking_, heads, seed) for seed in range(DRAWS)]
        of = [held.head_scores_[places(held, some)].mean() for some in (heads, *draws)]
        lists = held.random_scores_[:, *places(held, heads)].mean(axis=1)
        found["explained"][top] = {
            "chosen": round(float(of[0]), 4),
            "random_heads": quartiles(of[1:]),
            "random_heads_below": int((of[0] > np.array(of[1:])).sum()),
            "random_lists": quartiles(lists),
            "random_lists_below": int((of[0] > lists).sum()),
        }
        for factor in FACTORS:
            control = [edits(some, factor) for some in draws]
            means = np.array([moved.mean() for moved, _ in control])
            row = {"top": top, "factor": factor, "pursuit": edits.row(heads, factor)}
            row["mean_logits"] = edits.row(lens[:top], factor)
            row["random_heads"] = {
                "log_probability": quartiles(means),
                "kl": quartiles([kl for _, kl in control]),
            }
            mine = row["pursuit"]["log_probability"][0] * np.sign(factor)
            row["random_heads_weaker"] = int((means * np.sign(factor) < mine).sum())
            found["edits"].append(row)
            print(name, row, flush=True)
    return found


def read_heads(embedder, start, texts):
    """Means of what heads write, on texts to choose by and on others."""
    blocks = list(range(start, embedder.n_blocks))
    reader = clone(embedder).set_params(layer=blocks, site="heads", pooling="mean")
    return reader.transform(texts[:N_FIT]), reader.transform(texts[N_FIT : N_FIT + N_TEST])


def unembedding(model):
    return model.get_output_embeddings().weight.detach().numpy()


def times(embedder, n_heads):
    """Seconds of a fit on random samples, on whose values time does not depend."""
    every, draws = unembedding(embedder.model[0]), np.random.default_rng(0)
    n_heads_each = embedder.model[0].config.num_attention_heads
    heads = [(block, head) for block in range(embedder.n_blocks) for head in range(n_heads_each)]
    shape = N_FIT, every.shape[1]
    writes = {head: draws.normal(size=shape).astype(np.float32) for head in heads}
    some = draws.choice(len(every), 200, replace=False)
    few = dict(list(writes.items())[:n_heads])
    found = {"samples": N_FIT, "threads": 2}
    for name, rows, of in (("words_200", every[some], writes), ("vocabulary", every, few)):
        wall, cpu = time.perf_counter(), time.process_time()
        HeadPursuit(rows, top_k=1, n_jobs=2).fit(of)
        found[name] = {
            "atoms": len(rows),
            "heads": len(of),
            "wall_s": round(time.perf_counter() - wall, 1),
            "cpu_s": round(time.process_time() - cpu, 1),
        }
        print(name, found[name], flush=True)
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--lists", nargs="+", choices=list(WORDS), default=list(WORDS))
    parser.add_argument("--from-block", type=int, default=0)
    parser.add_argument("--parts", nargs="+", choices=("edits", "time"), default=("edits", "time"))
    parser.add_argument("--time-heads", type=int, help="heads for the whole vocabulary; all")
    parser.add_argument("--out")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of texts that are cut
    lines = (Path(args.data) / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    texts = list(dict.fromkeys(json.loads(line)["text"] for line in lines))
    texts = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))]
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model).float().eval()
    embedder = TransformerEmbedder((model, tokenizer), max_length=LENGTH)
    result = {"data": short(args.data), "model": short(args.model), "texts": [N_FIT, N_TEST]}
    if args.out and Path(args.out).is_file():
        result = {**json.loads(Path(args.out).read_text(encoding="utf-8")), **result}
    if "edits" in args.parts:
        stacks = read_heads(embedder, args.from_block, texts)
        judge = Judge(model, tokenizer, embedder.reader.sink)
        for name in args.lists:
            held = measure(name, embedder, judge, stacks, texts[N_FIT + N_TEST :])
            result.setdefault(f"from_block_{args.from_block}", {})[name] = held
            if args.out:
                write_json(args.out, result)
    if "time" in args.parts:
        result["time"] = times(embedder, args.time_heads)
    if args.out:
        write_json(args.out, result)


if __name__ == "__main__":
    main()
