"""Detection by asking: a chat model is asked whether a concept is in a sample."""

from skact.prompting._answerer import DetachedModel
from skact.prompting._detector import PromptDetector
from skact.prompting._prompt import Prompt, parse_answer

__all__ = ["DetachedModel", "Prompt", "PromptDetector", "parse_answer"]
