"""How a language model goes on with prompts, and how likely it finds a text.

Imports torch and transformers: import this module only where a model is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from skact.models._alone import alone, evaluating
from skact.models._changing import Changeable
from skact.models._chats import check_chats
from skact.models._loaded import max_positions
from skact.models._memory import run_batches
from skact.models._processors import calling
from skact.models._sink import find_sink
from skact.models._template import chat_tokens
from skact.rows import Array

__all__ = ["Speaker", "decoding"]


@contextmanager
def decoding(model: Any, **settings: Any) -> Iterator[Any]:
    """Decode, greedily if not said otherwise, without what the checkpoint's settings would bend.

    Parameters
    ----------
    model : Module
        With ``generate``; left as it was.
    **settings
        Of the generation.

    Yields
    ------
    config : GenerationConfig
        To be passed to ``generate``.
    """
    with alone(model) as undo, evaluating(model):
        config = transformers.GenerationConfig(num_beams=1, **{"do_sample": False, **settings})
        undo.callback(setattr, model, "generation_config", model.generation_config)
        model.generation_config = config
        yield config


class _Drawing(transformers.LogitsProcessor):
    """Makes the largest logit a draw from the softmax, by Gumbel noise from a seed of each row."""

    def __init__(self, seeds: Sequence[int], temperature: float) -> None:
        self.draws = [np.random.default_rng(seed) for seed in seeds]
        self.temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        noise = np.stack([draw.gumbel(size=scores.shape[1]) for draw in self.draws])
        return scores + self.temperature * torch.as_tensor(noise).to(scores)


@dataclass(frozen=True)
class Speaker:
    """A language model with its tokenizer, as it goes on with prompts.

    Parameters
    ----------
    model : Changeable
        With a tokenizer and a head.
    batch_size : int
        Rows of a pass; halved where memory does not suffice.

    Raises
    ------
    ValueError
        If it cannot generate, or has no tokenizer.
    """

    model: Changeable
    batch_size: int = 16

    def __post_init__(self) -> None:
        if self.model.loaded.processor is None or not hasattr(self.model.whole, "generate"):
            raise ValueError(
                "model must be a pair (model, tokenizer) with a model that generates, such as one "
                f"of AutoModelForCausalLM; got {type(self.model.whole).__name__}."
            )

    def read(self, prompts: Sequence[Any], before: str = "") -> list[list[int]]:
        """Turn prompts into tokens, behind the token that takes the attention sink.

        Parameters
        ----------
        prompts : sequence of n_prompts str or chats
            Texts to go on with, or chats to be answered.
        before : str, default=""
            What stands before each text, or in the system message of each chat.

        Returns
        -------
        rows : list of n_prompts list of int
            Tokens.

        Raises
        ------
        ValueError
            If a text is empty, a chat is none, or the model has no chat template.
        """
        loaded = self.model.loaded
        sink = find_sink(loaded, "auto")
        start = [] if sink is None else [sink]
        rows = []
        for i, prompt in enumerate(prompts):
            if isinstance(prompt, str):
                if not prompt:
                    raise ValueError(f"prompt {i} is an empty text.")
                with calling(loaded.processor) as tokenizer:
                    rows.append(start + list(tokenizer(before + prompt)["input_ids"]))
            else:
                (chat,) = check_chats([prompt], loaded.processor, [i])
                told = _told(chat, before)
                chat_ids = chat_tokens(loaded.processor, told, add_generation_prompt=True).ids
                rows.append(chat_ids.tolist())
        return rows

    def check_room(self, rows: Sequence[Sequence[int]], n_new: int, what: str) -> None:
        """Refuse prompts that leave no room for what is to be written."""
        limit = max_positions(self.model.loaded, None)
        longest = max(map(len, rows))
        if limit is not None and longest + n_new > limit:
            raise ValueError(
                f"{what} have up to {longest} tokens, and with max_new_tokens={n_new} that is more "
                f"than the {limit} positions of the model; shorten them."
            )

    def texts(self, continuations: Array) -> list[str]:
        """Turn tokens into text, without special ones."""
        with calling(self.model.loaded.processor) as tokenizer:
            return [str(t) for t in tokenizer.batch_decode(continuations, skip_special_tokens=True)]

    def go_on(
        self, rows: Sequence[Sequence[int]], seeds: Sequence[int], n_new: int, temperature: float
    ) -> Array:
        """Go on with prompts; what becomes of one does not depend on the others.

        Parameters
        ----------
        rows : sequence of n_prompts sequences of int
            Tokens of the prompts.
        seeds : sequence of n_prompts int
            Seed of each, from which tokens are drawn.
        n_new : int
            Tokens to write; no token ends a text before.
        temperature : float
            Of the draws; 0 takes the most probable token.

        Returns
        -------
        continuations : ndarray of shape (n_prompts, n_new), dtype int64
            Tokens.
        """
        model: Any = self.model.whole
        pad = self.model.loaded.pad_id
        ends = model.generation_config.eos_token_id
        settings = {"max_new_tokens": n_new, "min_new_tokens": n_new, "pad_token_id": pad}
        settings["disable_compile"] = True

        def write(numbers: range) -> Array:
            ids, mask = self._padded([rows[i] for i in numbers], left=True)
            draws = _Drawing([seeds[i] for i in numbers], temperature)
            with decoding(model, eos_token_id=ends, **settings) as config:
                found = model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    generation_config=config,
                    logits_processor=transformers.LogitsProcessorList([draws]),
                )
            new: Array = found[:, ids.shape[1] :].cpu().numpy()
            return new

        return np.concatenate(list(self._batches(write, len(rows))))

    def losses(self, rows: Sequence[Sequence[int]], continuations: Array) -> Array:
        """Tell how surprising each token of continuations is behind its prompt.

        Parameters
        ----------
        rows : sequence of n_prompts sequences of int
            Tokens of the prompts.
        continuations : ndarray of shape (n_prompts, n_new), dtype int64
            Tokens.

        Returns
        -------
        losses : ndarray of shape (n_prompts, n_new), dtype float64
            Negative logarithm of the probability.
        """
        n_new = continuations.shape[1]
        whole = [[*row, *new] for row, new in zip(rows, continuations.tolist(), strict=True)]
        # The last token is not read to know how probable it was.
        known = self.log_probabilities([row[:-1] for row in whole], [n_new] * len(whole))
        return np.stack(
            [
                -one.gather(1, torch.as_tensor(new)[:, None])[:, 0].double().numpy()
                for one, new in zip(known, continuations, strict=True)
            ]
        )

    def log_probabilities(
        self, rows: Sequence[Sequence[int]], n_last: Sequence[int]
    ) -> list[Tensor]:
        """Predict the next token behind the last positions of each row.

        Parameters
        ----------
        rows : sequence of n_rows sequences of int
            Tokens.
        n_last : sequence of n_rows int
            Positions at the end of each.

        Returns
        -------
        predictions : list of n_rows Tensor of shape (n_last_i, n_words), dtype float32
            Log-probabilities.
        """

        def predict(numbers: range) -> list[Tensor]:
            ids, mask = self._padded([rows[i] for i in numbers], left=False)
            with alone(self.model.whole), evaluating(self.model.whole):
                logits = self.model.whole(input_ids=ids, attention_mask=mask).logits
            return [
                logits[k, len(rows[i]) - n_last[i] : len(rows[i])].float().log_softmax(-1).cpu()
                for k, i in enumerate(numbers)
            ]

        return [one for batch in self._batches(predict, len(rows)) for one in batch]

    def _padded(self, rows: Sequence[Sequence[int]], left: bool) -> tuple[Tensor, Tensor]:
        width = max(map(len, rows))
        ids = np.full((len(rows), width), self.model.loaded.pad_id)
        mask = np.zeros((len(rows), width), np.int64)
        for k, row in enumerate(rows):
            part = slice(width - len(row), None) if left else slice(len(row))
            ids[k, part], mask[k, part] = row, 1
        device = self.model.loaded.device
        return torch.as_tensor(ids, device=device), torch.as_tensor(mask, device=device)

    def _batches(self, run: Callable[[range], Any], n_rows: int) -> Iterator[Any]:
        def cut(n_done: int, size: int) -> range:
            return range(n_done, min(n_done + size, n_rows))

        with torch.inference_mode():
            for _, result in run_batches(cut, run, self.batch_size):
                yield result


def _told(chat: Any, before: str) -> list[Any]:
    """Put a text into the system message of a chat."""
    if not before:
        return list(chat)
    if chat and chat[0]["role"] == "system":
        return [{"role": "system", "content": f"{before}\n{chat[0]['content']}"}, *chat[1:]]
    return [{"role": "system", "content": before}, *chat]
