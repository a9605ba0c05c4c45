"""Detection by asking: a chat model is asked whether a concept is in a sample."""

from skact.prompting._detector import Prompt, PromptDetector, parse_answer

__all__ = ["Prompt", "PromptDetector", "parse_answer"]
