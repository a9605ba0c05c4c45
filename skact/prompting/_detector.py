r"""The prompt baseline: ask a generative model whether a concept is in a sample.

One greedy generation per sample x and concept c, with a question q(c) that asks for Yes or No;

.. math:: \hat y_c(x) = \big[\text{the answer to } q(c) \text{ about } x \text{ is Yes}\big]

An answer that is neither Yes nor No counts as No, and is reported. Nothing is learnt, and there is
no score. Or, in one pass and without generation, the log-odds of the next token,

.. math:: s_c(x) = \log \sum_{t \in \text{Yes}} e^{\ell_t} - \log \sum_{t \in \text{No}} e^{\ell_t},
          \qquad \hat y_c(x) = [s_c(x) \ge \tau_c],

over all tokens t that spell the word, with logits :math:`\ell` and a cut :math:`\tau_c` of the
best F1 on the samples given to ``fit``.

Source: Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism: Transformers Concentrate Reliable
Concept Signals in the Tail", section on baselines.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from skact.arguments import Number
from skact.base import AnswersMixin, SharedModelMixin
from skact.prompting._answer_log import AnswerLog
from skact.prompting._answerer import Answerer, CallableAnswerer, DetachedModel, check_model
from skact.prompting._ask import ask
from skact.prompting._inputs import check_names, check_samples, guess_kind
from skact.prompting._prompt import check_options, check_template, parse_answer
from skact.rows import Array
from skact.samples import as_list
from skact.tail import best_cut
from skact.targets import check_targets, label_classes
from skact.validation import weighted_samples
from skact.warning import warn

__all__ = ["PromptDetector"]

# Mean probability of both words below which the model means to say something else.
_SMALL = 0.1


class PromptDetector(AnswersMixin, SharedModelMixin, BaseEstimator):
    """A concept is present if a generative model, asked about it, answers Yes.

    The baseline needs no activations: raw samples go in, and each pair of a sample and a concept is
    one greedy generation. ``fit`` only takes down what y looks like. With ``scores="logits"`` it is
    one forward pass, which gives a score, and ``fit`` sets the cut of each concept.

    Parameters
    ----------
    model : str, Path, tuple or callable, default=None
        Name on the Hugging Face hub, local folder, a loaded pair ``(model, tokenizer or
        processor)``, or a function that takes a list of :class:`Prompt` and returns as many
        strings, for models that run elsewhere. A Hugging Face model needs a chat template; it is
        loaded on first use and shared by clones. A loaded pair stays where it is, is left
        unchanged, and is not pickled.
    concepts : sequence of str or None, default=None
        Words for the concepts, in the order of the columns of y. None takes the column names of a
        data frame, or the classes where they are more than two strings.
    prompt : str, default="Is the concept '{concept}' present in this {kind}? Answer Yes or No."
        The question. ``{concept}`` is needed; ``{kind}`` becomes "text" or "image".
    scores : {"answer", "logits"}, default="answer"
        "answer" lets the model write, and reads Yes or No. "logits" compares both words as the next
        token, in any case and with blanks around them: log-odds of Yes against No. A thought that
        the template opens is closed unthought; for a model that opens one itself, see
        ``template_options``. Needs a Hugging Face model.
    system : str or None, default=None
        System message for a Hugging Face model. A callable adds its own.
    modality : {"auto", "text", "image"}, default="auto"
        What samples are. "auto" goes by the model: one that reads images is used for images. For
        a callable, strings are texts and all else is an image.
    batch_size : int, default=8
        Prompts per call of the model. It does not change the answers.
    max_new_tokens : int, default=8
        Longest answer of a Hugging Face model, with what it thinks before; not used with
        ``scores="logits"``.
    template_options : dict or None, default=None
        Variables for the chat template of a Hugging Face model, such as
        ``{"enable_thinking": False}``; those that it does not know are refused.
    log : str, Path or None, default=None
        JSON Lines file of answers. Each batch is on the disk before the next is asked, and what it
        holds is not asked again; see Notes.
    device : str, default="auto"
        Where a named model runs; "auto" takes CUDA where there is some.
    dtype : {"auto", "float32", "float16", "bfloat16"}, default="auto"
        Precision of a named model; "auto" is that of the checkpoint, and float32 on a CPU.
    revision : str or None, default=None
        Commit, tag or branch of a named model. With a callable: any text that says which model
        answers, needed for ``log``.
    trust_remote_code : bool, default=False
        Whether to run code that comes with the model. Needs a full commit hash as ``revision``.
    progress : bool, default=False
        Whether to show a progress bar.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,) or (n_concepts,)
        The classes, or the numbers of the concepts where y was an indicator matrix.
    multilabel_ : bool
        Whether y was an indicator matrix.
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        What is asked for.
    thresholds_ : ndarray of shape (n_concepts,), dtype float64
        Cuts of the log-odds with the best F1 on the samples of ``fit``; 0 with
        ``scores="answer"``.

    Raises
    ------
    ValueError, TypeError, OSError
        If parameters, model and samples do not fit each other; before any question is asked,
        except that the answers of a callable are checked as they come, and the lengths of prompts
        with an image after the first one.

    Notes
    -----
    An answer in the log is found by a SHA-256 over the model (all of its weights, its
    dtype, vocabulary, chat template, image processor; for a callable its ``revision``), the system
    message, the options of the template, the question, the content of the sample and the length of
    the answer. So an answer is never taken for that of another model or question, and a changed
    setting asks anew. Equal samples are asked once.

    Control tokens that a text spells (``<|im_end|>``) are read as text. A template that marks turns
    by plain words ("[INST]") cannot be told from a text that writes the same words.

    References
    ----------
    Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism: Transformers Concentrate Reliable
    Concept Signals in the Tail", section on baselines.

    Examples
    --------
    >>> from skact import PromptDetector
    >>> def ask(prompts):
    ...     return ["Yes" if p.concept in p.sample else "No" for p in prompts]
    >>> texts = ["the food was a joy", "good food", "hello"]
    >>> detector = PromptDetector(ask, concepts=["joy", "food"])
    >>> detector.fit(texts, [[1, 1], [0, 1], [0, 0]]).predict(["food", "joyful"])
    array([[0, 1],
           [1, 0]])
    """

    _parameter_constraints: dict[str, Any] = {
        "model": "no_validation",
        "concepts": ["array-like", None],
        "prompt": [str],
        "scores": [StrOptions({"answer", "logits"})],
        "system": [str, None],
        "modality": [StrOptions({"auto", "text", "image"})],
        "batch_size": [Number(Integral, 1, None, closed="left")],
        "max_new_tokens": [Number(Integral, 1, None, closed="left")],
        "template_options": [dict, None],
        "log": [str, Path, None],
        "device": [str],
        "dtype": [StrOptions({"auto", "float32", "float16", "bfloat16"})],
        "revision": [str, None],
        "trust_remote_code": ["boolean"],
        "progress": ["boolean"],
    }

    concept_names_: Array
    thresholds_: Array

    def __init__(
        self,
        model: Any = None,
        *,
        concepts: Sequence[str] | None = None,
        prompt: str = "Is the concept '{concept}' present in this {kind}? Answer Yes or No.",
        scores: str = "answer",
        system: str | None = None,
        modality: str = "auto",
        batch_size: int = 8,
        max_new_tokens: int = 8,
        template_options: dict[str, Any] | None = None,
        log: str | Path | None = None,
        device: str = "auto",
        dtype: str = "auto",
        revision: str | None = None,
        trust_remote_code: bool = False,
        progress: bool = False,
    ) -> None:
        self.model = model
        self.concepts = concepts
        self.prompt = prompt
        self.scores = scores
        self.system = system
        self.modality = modality
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens
        self.template_options = template_options
        self.log = log
        self.device = device
        self.dtype = dtype
        self.revision = revision
        self.trust_remote_code = trust_remote_code
        self.progress = progress

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Take down the classes and the names of the concepts; for logits, ask and set the cuts.

        Parameters
        ----------
        X : sequence of n_samples texts or images
            As in :meth:`predict`; only counted here with ``scores="answer"``.
        y : array-like of shape (n_samples,) or (n_samples, n_concepts)
            Class labels (of two the larger one is the concept, of more each one) or an indicator
            matrix.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each sample counts for the cuts: a weight of 2 is that of a sample that is
            there twice, one of 0 leaves it out, unasked.

        Returns
        -------
        self : PromptDetector
            Fitted.

        Raises
        ------
        ValueError
            If a parameter is wrong, X, y and sample_weight differ in length, or the concepts have
            no names.
        """
        self._check_params()
        samples, (y,), weight = weighted_samples(sample_weight, as_list(X), y=y)
        targets = check_targets(self, y, len(samples))
        names = check_names(self.concepts, targets)
        self.multilabel_, self.classes_ = targets.classes is None, label_classes(targets)
        self.concept_names_ = np.array(names, dtype=object)
        self.thresholds_ = np.zeros(len(names))
        if self.scores == "logits":
            self.thresholds_ = best_cut(self._odds(samples), targets.present, weight)
        return self

    @property
    def _has_own_names(self) -> bool:  # type: ignore[override]
        return self.concepts is not None

    def answers(self, X: Any) -> Bunch:
        """Ask about every sample and concept.

        Parameters
        ----------
        X : sequence of n_samples texts or images
            As in :meth:`predict`.

        Returns
        -------
        answers : Bunch
            ``text``, object array of shape (n_samples, n_concepts) with what the model said;
            ``parsed``, float64 of that shape with 1 for yes, 0 for no and NaN for neither;
            ``n_unparsed``, the number of NaN; ``concept_names``. With ``scores="logits"``, ``text``
            holds two numbers, ``odds`` the first, log-odds of Yes against No, ``share`` the second,
            the probability that the next token is either; ``parsed`` is 1 where the odds are
            positive.

        Raises
        ------
        NotFittedError, ValueError, TypeError, OSError
            Before ``fit``, or if samples, questions and model do not fit each other, before any
            question is asked.
        """
        check_is_fitted(self)
        self._check_params()
        samples = as_list(X)
        model = self._open(samples)
        digests = check_samples(samples, model.kind)
        text = ask(
            model,
            samples,
            digests,
            self.concept_names_.tolist(),
            self.prompt,
            log=None if self.log is None else AnswerLog(self.log),
            batch_size=self.batch_size,
            progress=self.progress,
        )
        if self.scores == "logits":
            numbers = np.array([[said.split() for said in row] for row in text], dtype=np.float64)
            odds, share = np.moveaxis(numbers, 2, 0)
            parsed = (odds > 0).astype(np.float64)
            more = {"odds": odds, "share": share}
            return Bunch(
                text=text, parsed=parsed, n_unparsed=0, concept_names=self.concept_names_, **more
            )
        values = {True: 1.0, False: 0.0, None: np.nan}
        parsed = np.array([[values[parse_answer(said)] for said in row] for row in text])
        n_unparsed = int(np.isnan(parsed).sum())
        return Bunch(
            text=text, parsed=parsed, n_unparsed=n_unparsed, concept_names=self.concept_names_
        )

    def decision_function(self, X: Any) -> Array:
        """Give +1 where the answer is Yes and -1 elsewhere; or the log-odds minus their cut.

        Parameters
        ----------
        X : sequence of n_samples texts or images
            As in :meth:`predict`.

        Returns
        -------
        decision : ndarray of shape (n_samples,) or (n_samples, n_concepts), dtype float64
            With ``scores="answer"`` signs, so a ranking metric says little.

        Raises
        ------
        NotFittedError, ValueError, TypeError, OSError
            As in ``answers``.

        Warns
        -----
        UserWarning
            If answers are neither Yes nor No, with their number and examples; or if the next token
            is hardly ever one of them.
        """
        if self.scores == "logits":
            check_is_fitted(self)
            return self._like_y(self._odds(X) - np.nextafter(self.thresholds_, -np.inf))
        answers = self.answers(X)
        if answers.n_unparsed:
            odd = answers.text[np.isnan(answers.parsed)]
            examples = ", ".join(repr(said[:40]) for said in dict.fromkeys(odd[:100]))
            warn(
                f"{answers.n_unparsed} of {answers.parsed.size} answers are neither Yes nor No and "
                f"count as not present, such as {examples[:200]}; answers(X) shows them all.",
            )
        return self._like_y(np.where(answers.parsed == 1, 1.0, -1.0))

    def predict(self, X: Any) -> Array:
        """Tell which samples hold which concept.

        Parameters
        ----------
        X : sequence of n_samples texts or images
            List, tuple, 1-D array, Series or other column, or table with one column, of strings or
            of images: paths, PIL images, uint8 arrays (height, width[, channels]) or float arrays
            in [0, 1]. A 4-D array holds images of one size.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_concepts)
            Class labels, or 0 and 1 per concept. Unclear answers count as not present, with a
            warning. Of more than two classes the one with the largest decision, of equal ones the
            first; a warning says how often no single class, or none at all, was answered Yes.

        Raises
        ------
        NotFittedError, ValueError, TypeError, OSError
            As in ``answers``.
        """
        decision = self.decision_function(X)
        if self._has_many_classes and self.scores == "answer":
            said_yes = (decision > 0).sum(axis=1)
            if (said_yes != 1).any():
                warn(
                    f"of {len(decision)} samples {(said_yes > 1).sum()} got Yes for several "
                    f"classes and {(said_yes == 0).sum()} for none; the first of equal classes is "
                    "taken. "
                    'scores="logits" compares them.'
                )
        return self._answers(decision)

    def _odds(self, X: Any) -> Array:
        """Log-odds of Yes against No, (n_samples, n_concepts)."""
        answers = self.answers(X)
        share = float(answers.share.mean())
        if share < _SMALL:
            warn(
                f"the model gives Yes and No together a mean probability of {share:.2g} as the "
                "next token, so it means to say something else, such as a thought; set "
                "template_options, as in {'enable_thinking': False}, or another prompt."
            )
        odds: Array = answers.odds
        return odds

    def _check_params(self) -> None:
        self._validate_params()
        check_model(self.model)
        check_template(self.prompt)
        if callable(self.model):
            for name in ("system", "template_options"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is for Hugging Face models; a callable adds its own.")
            if self.scores == "logits":
                raise ValueError(
                    'scores="logits" is for Hugging Face models; a callable gives answers only.'
                )
            if self.log is not None and not self.revision:
                raise ValueError(
                    "log with a callable needs revision: any text that says which model answers, "
                    "so that its answers are not taken for those of another one."
                )
        check_options(self.template_options)
        self._check_remote_code()
        if self.log is not None:
            AnswerLog(self.log)

    def _open(self, samples: list[Any]) -> Answerer:
        if callable(self.model):
            kind = guess_kind(samples) if self.modality == "auto" else self.modality
            return CallableAnswerer(self.model, kind, ["callable", self.revision])
        from skact.models import load_chat

        return load_chat(
            self.model,
            modality=self.modality,
            system=self.system,
            max_new_tokens=self.max_new_tokens,
            template_options=self.template_options,
            scores=self.scores,
            device=self.device,
            dtype=self.dtype,
            revision=self.revision,
            trust_remote_code=self.trust_remote_code,
        )

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        if isinstance(self.model, tuple):
            return {**state, "model": DetachedModel()}
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.classifier_tags.poor_score = True
        tags.target_tags.multi_output = True
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags
