"""Language models behind any endpoint that speaks OpenAI's API; without one, rules do."""

import os
from dataclasses import dataclass

NO_MODEL = "no language model: the gate decides by rules, and answers are read from pages by rules"


@dataclass
class LanguageModel:
    """prompt -> answer, by an OpenAI-compatible endpoint: OpenAI, Gemini, vLLM, Ollama.

    ImportError: the extra `llm` is not installed. ValueError: OpenAI's own endpoint, and no key.
    """

    model: str  # its name there
    base_url: str | None = None  # of the endpoint; else the variable OPENAI_BASE_URL, else OpenAI's own
    key: str | None = None  # else the variable OPENAI_API_KEY; servers of one's own need none
    seconds: float = 30.0  # for an answer
    retries: int = 1  # after time-outs, 429 and 5xx

    def __post_init__(self) -> None:
        try:
            import openai
        except ImportError as error:
            raise ImportError("language models need the extra 'llm': pip install 'rose_kit[llm]'") from error
        url = self.base_url or os.environ.get("OPENAI_BASE_URL")
        key = self.key or os.environ.get("OPENAI_API_KEY")
        if not (url or key):
            raise ValueError(f"model {self.model!r} needs OPENAI_BASE_URL or OPENAI_API_KEY")
        told = {
            "base_url": url,
            "api_key": key or "none",
            "timeout": self.seconds,
            "max_retries": self.retries,
        }
        self._client, self._error = openai.OpenAI(**told), openai.OpenAIError

    def __call__(self, prompt: str) -> str:
        """The answer, at temperature 0; OSError: the endpoint is away, refuses, is slow or says nothing."""
        asked = {"messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": 200}
        try:
            answer = self._client.chat.completions.create(model=self.model, **asked)
            return answer.choices[0].message.content or ""
        except (self._error, AttributeError, IndexError, TypeError, ValueError) as error:
            where = str(self._client.base_url)
            raise OSError(f"language model {self.model!r} at {where} did not answer: {error!r}") from error
