"""Detection by asking: a chat model is asked whether a concept is in a sample."""

from skact.prompting._answerer import Answerer, CallableAnswerer, DetachedModel, check_model
from skact.prompting._detector import PromptDetector
from skact.prompting._prompt import Prompt, parse_answer

__all__ = [
    "Answerer",
    "CallableAnswerer",
    "DetachedModel",
    "Prompt",
    "PromptDetector",
    "check_model",
    "parse_answer",
]
