"""Ask a generative model of Hugging Face: a batch of prompts in, their answers out.

Imports torch and transformers: import this module only where a model is needed.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import nn

from skact.models._continuing import decoding
from skact.models._hub import Checkpoint, PairKind, first_weight, load_pair
from skact.models._memory import run_batches
from skact.models._template import apply_template, chat_tokens, check_options
from skact.models._untouched import drawing
from skact.models._weights import fingerprint

__all__ = ["Generator", "check_chat_model", "load_chat"]

# The begin of a thought, which some templates write at the end of the question.
_OPEN_THOUGHT = re.compile(r"<(think(?:ing)?)>\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class Generator:
    """A model that answers prompts, by greedy decoding if it is not told to draw.

    Parameters
    ----------
    model : Module
        With ``generate``; left as it was after every call.
    processor : tokenizer or processor
        A private copy that pads on the left.
    kind : {"text", "image"}
        What the samples are.
    system : str or None
        System message before every question.
    max_new_tokens : int
        Length of an answer.
    template_options : dict
        Variables for the chat template.
    scores : {"answer", "logits"}
        Whether an answer is what the model writes, or how much it prefers Yes to No.
    temperature : float
        Temperature that tokens are drawn with; 0 takes the most probable one.
    seed : int
        Of the draws of one batch; the state of torch's generators is left as it was.
    """

    model: Any
    processor: Any
    kind: str
    system: str | None
    max_new_tokens: int
    template_options: dict[str, Any]
    scores: str = "answer"
    temperature: float = 0.0
    seed: int = 0

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the processor, or the processor itself."""
        return getattr(self.processor, "tokenizer", self.processor)

    @property
    def identity(self) -> list[Any]:
        """All that the answer to a given question about a given sample depends on."""
        vocabulary = sorted(self.tokenizer.get_vocab().items())
        pixels = getattr(self.processor, "image_processor", None) if self.kind == "image" else None
        said = [vocabulary, self.processor.chat_template, pixels and pixels.to_dict()]
        digest = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()
        dtype = str(first_weight(self.model).dtype)
        drawn = ["drawn", self.temperature] if self.temperature else ["greedy"]
        how = ["logits"] if self.scores == "logits" else [*drawn, self.max_new_tokens]
        settings = [*how, self.system, self.template_options]
        return [fingerprint(self.model), digest, dtype, *settings]

    def check(self, prompts: Iterable[Any]) -> None:
        """Refuse prompts that the chat template or the model's positions cannot hold.

        Parameters
        ----------
        prompts : iterable of Prompt
            Of images only the first is tried, for each has to be prepared.

        Raises
        ------
        ValueError
            If a prompt does not fit.
        """
        for prompt in prompts:
            inputs = self._encode([prompt])
            self._check_length(inputs["input_ids"].shape[1], prompt)
            if self.kind == "image":
                break

    def __call__(self, prompts: Sequence[Any]) -> list[str]:
        """Answer prompts, in smaller batches if memory does not suffice.

        Parameters
        ----------
        prompts : sequence of Prompt
            One batch.

        Returns
        -------
        answers : list of str
            The newly written text of each, without special tokens. With ``scores="logits"`` two
            numbers: log-odds of Yes against No, and the probability of both together.
        """
        answer = self._prefer if self.scores == "logits" else self._answer
        batches = run_batches(
            lambda n_done, size: prompts[n_done : n_done + size], answer, len(prompts)
        )
        return [answer for _, answers in batches for answer in answers]

    def _answer(self, prompts: Sequence[Any]) -> list[str]:
        written, n_read = self._generate(prompts, max_new_tokens=self.max_new_tokens)
        answers = self.tokenizer.batch_decode(written[:, n_read:], skip_special_tokens=True)
        return [str(answer) for answer in answers]

    def _prefer(self, prompts: Sequence[Any]) -> list[str]:
        """Compare the words as the next one, in one pass."""
        yes, no = (_spellings(self.tokenizer, word) for word in ("yes", "no"))
        options = {"output_logits": True, "return_dict_in_generate": True}
        found, _ = self._generate(prompts, max_new_tokens=1, **options)
        logits = found.logits[0].double().log_softmax(dim=1).cpu()
        says = [logits[:, ids].logsumexp(dim=1) for ids in (yes, no)]
        odds, share = says[0] - says[1], says[0].exp() + says[1].exp()
        return [f"{a!r} {b!r}" for a, b in zip(odds.tolist(), share.tolist(), strict=True)]

    def _generate(self, prompts: Sequence[Any], **options: Any) -> tuple[Any, int]:
        """Return what is generated, and how many tokens were read before."""
        inputs = self._encode(prompts)
        n_read = inputs["input_ids"].shape[1]
        self._check_length(n_read, prompts[0])
        parameter = first_weight(self.model)
        inputs = {
            name: value.to(parameter) if value.is_floating_point() else value.to(parameter.device)
            for name, value in inputs.items()
        }
        with self._decoding(**options) as settings, torch.inference_mode():
            return self.model.generate(**inputs, generation_config=settings), n_read

    @contextmanager
    def _decoding(self, **options: Any) -> Iterator[Any]:
        ends = self.model.generation_config.eos_token_id
        ends = self.tokenizer.eos_token_id if ends is None else ends
        pad = self.tokenizer.pad_token_id
        if self.temperature:
            options |= {"do_sample": True, "temperature": self.temperature, "top_k": 0}
        with (
            decoding(self.model, eos_token_id=ends, pad_token_id=pad, **options) as settings,
            drawing(self._devices) if self.temperature else nullcontext(),
        ):
            if self.temperature:
                torch.manual_seed(self.seed)
            yield settings

    @property
    def _devices(self) -> list[torch.device]:
        """Devices other than the processor on which something is drawn."""
        device = first_weight(self.model).device
        return [device] if device.type == "cuda" else []

    def _messages(self, prompt: Any) -> list[dict[str, Any]]:
        roles = {"system": self.system, "user": prompt.text}
        return [{"role": role, "content": text} for role, text in roles.items() if text]

    def _encode(self, prompts: Sequence[Any]) -> dict[str, Any]:
        if self.kind == "image":
            return self._encode_images(prompts)
        ids = {"input_ids": [self._read(prompt) for prompt in prompts]}
        return dict(self.tokenizer.pad(ids, padding=True, return_tensors="pt"))

    def _read(self, prompt: Any) -> list[int]:
        try:
            chat = chat_tokens(
                self.processor,
                self._messages(prompt),
                add_generation_prompt=True,
                template_options=self.template_options,
            )
        except ValueError as error:
            raise ValueError(f"{error} The prompt begins {prompt.text[:60]!r}.") from error
        ids: list[int] = chat.ids.tolist()
        thought = _OPEN_THOUGHT.search(self.tokenizer.decode(ids[-20:]))
        if self.scores == "logits" and thought:
            ids += self.tokenizer.encode(f"</{thought[1]}>\n\n", add_special_tokens=False)
        return ids

    def _encode_images(self, prompts: Sequence[Any]) -> dict[str, Any]:
        check_options(self.processor, self.template_options)
        chats = []
        for prompt in prompts:
            chat = [
                {**message, "content": [{"type": "text", "text": message["content"]}]}
                for message in self._messages(prompt)
            ]
            chat[-1]["content"].insert(0, {"type": "image", "image": prompt.sample})
            chats.append(chat)
        takes = inspect.signature(self.processor.apply_chat_template).parameters
        padding: dict[str, Any] = {"padding": True}
        encoded = apply_template(
            self.processor,
            chats,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            **({"processor_kwargs": padding} if "processor_kwargs" in takes else padding),
            **self.template_options,
        )
        return {name: value for name, value in encoded.items() if torch.is_tensor(value)}

    def _check_length(self, n_read: int, prompt: Any) -> None:
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        n_new = 1 if self.scores == "logits" else self.max_new_tokens
        if isinstance(limit, int) and 0 < limit < n_read + n_new:
            raise ValueError(
                f"a prompt of {n_read} tokens and an answer of max_new_tokens="
                f"{n_new} exceed the {limit} positions of the model; shorten the "
                f"samples. It begins {prompt.text[:60]!r}."
            )


def _spellings(tokenizer: Any, word: str) -> list[int]:
    """Tokens that spell a word in any case, alone or with blanks around it.

    Parameters
    ----------
    tokenizer : tokenizer of transformers
        The tokenizer.
    word : str
        In lower case.

    Returns
    -------
    ids : list of int
        Ascending.

    Raises
    ------
    ValueError
        If there is none.
    """
    near = [i for token, i in tokenizer.get_vocab().items() if word in token.lower()]
    ids = sorted(i for i in near if tokenizer.decode([i]).strip().lower() == word)
    if not ids:
        raise ValueError(
            f'scores="logits", but {type(tokenizer).__name__} has no token for the word {word!r}; '
            'use scores="answer".'
        )
    return ids


def _fetch(checkpoint: Checkpoint, device: str, dtype: str) -> tuple[nn.Module, Any]:
    build, processor = _fetch_light(checkpoint)
    return checkpoint.model(build, device, dtype), processor


def _fetch_light(checkpoint: Checkpoint) -> tuple[Any, Any]:
    """Class and processor of a model, checked before its weights are loaded."""
    config = checkpoint.fetch("config", transformers.AutoConfig)
    what = f"model={checkpoint.name!r}"
    _check_decoder(config, what)
    if getattr(config, "vision_config", None) is not None:
        build: Any = transformers.AutoModelForImageTextToText
        processor = checkpoint.fetch("processor", transformers.AutoProcessor)
    else:
        build = transformers.AutoModelForCausalLM
        processor = checkpoint.fetch("tokenizer", transformers.AutoTokenizer)
    _check_chat(processor, what)
    return build, processor


_KIND = PairKind(
    parts="config, weights, tokenizer and chat template",
    model="a transformers model that generates",
    processor="a tokenizer or a processor",
    has="generate",
    is_processor=lambda processor: hasattr(processor, "apply_chat_template"),
    fetch=_fetch,
)


def _check_decoder(config: Any, what: str) -> None:
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(f"{what} has an encoder and a decoder; pass a decoder model.")


def _check_chat(processor: Any, what: str) -> None:
    if not getattr(processor, "chat_template", None):
        raise ValueError(
            f"{what} has no chat template, so it is not known how to ask it; use an "
            "instruction-tuned model, or set chat_template on the tokenizer or processor."
        )


def _padding_left(processor: Any) -> Any:
    """Copy a processor and let it pad on the left; the user's is never changed."""
    processor = copy.deepcopy(processor)
    tokenizer = getattr(processor, "tokenizer", processor)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        # Padding is masked, so any token will do.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return processor


def check_chat_model(model: str) -> None:
    """Refuse a model that cannot be asked, without loading its weights.

    Parameters
    ----------
    model : str
        Name on the hub, or folder.

    Raises
    ------
    ValueError, OSError
        If there is none, it is no decoder, or it has no chat template.
    """
    options: dict[str, Any] = {"revision": None, "trust_remote_code": False}
    _fetch_light(Checkpoint.named(model, _KIND.parts, **options))


def load_chat(
    model: Any,
    *,
    modality: str,
    system: str | None,
    max_new_tokens: int,
    template_options: dict[str, Any] | None = None,
    scores: str = "answer",
    temperature: float = 0.0,
    device: str,
    dtype: str,
    revision: str | None,
    trust_remote_code: bool,
) -> Generator:
    """Load a model, or take it from the cache of this process.

    Parameters
    ----------
    model, modality, system, max_new_tokens, template_options, scores
        As in :class:`~skact.prompting.PromptDetector`.
    temperature : float, default=0.0
        As in :class:`Generator`.
    device, dtype, revision, trust_remote_code
        As in :class:`~skact.prompting.PromptDetector`.

    Returns
    -------
    generator : Generator
        The model, ready to be asked.

    Raises
    ------
    OSError
        If a name can neither be found nor fetched.
    ValueError, TypeError
        If the model, its processor and the other parameters do not fit each other.
    """
    generates, processor, _ = load_pair(
        model, _KIND, device, dtype, revision=revision, trust_remote_code=trust_remote_code
    )
    if isinstance(model, tuple):
        _check_decoder(generates.config, type(generates).__name__)
        _check_chat(processor, f"the loaded {type(processor).__name__}")
    sees = hasattr(processor, "image_processor")
    if modality == "image" and not sees:
        raise ValueError('modality="image", but the model has no image processor: it reads text.')
    kind = "image" if sees and modality != "text" else "text"
    options = dict(template_options or {})
    reader = _padding_left(processor)
    generator = Generator(
        generates, reader, kind, system, max_new_tokens, options, scores, temperature
    )
    if scores == "logits":
        for word in ("yes", "no"):
            _spellings(generator.tokenizer, word)  # before anything is asked
    return generator
