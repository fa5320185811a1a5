"""Language models behind any endpoint that speaks OpenAI's API; without one, rules decide."""

import os
from typing import Any


class LanguageModel:
    """prompt -> answer, by an OpenAI-compatible endpoint: OpenAI, Gemini, vLLM, Ollama.

    Args:
        model: its name at the endpoint.
        options: of `openai.OpenAI`: `base_url` (else the variable OPENAI_BASE_URL, else OpenAI's own),
            `api_key` (else the variable OPENAI_API_KEY; your own server needs none), `timeout` in seconds
            (else 30), `max_retries` after time-outs and HTTP 429 and 5xx (else 1).

    Raises:
        ImportError: the extra `llm` is not installed.
        ValueError: neither an endpoint nor a key is given.
    """

    def __init__(self, model: str, **options: Any) -> None:
        try:
            import openai
        except ImportError as error:
            raise ImportError("language models need the extra 'llm': pip install 'rose_kit[llm]'") from error
        key = os.environ.get("OPENAI_API_KEY")
        if not (key or os.environ.get("OPENAI_BASE_URL") or options):
            raise ValueError(f"model {model!r} needs OPENAI_BASE_URL or OPENAI_API_KEY")
        self.model, self.error = model, openai.OpenAIError
        defaults = {"api_key": key or "none", "timeout": 30, "max_retries": 1}
        self.client = openai.OpenAI(**defaults | options)

    def __call__(self, prompt: str) -> str:
        """The answer at temperature 0; OSError: the endpoint refuses, is too slow, or sends no answer."""
        messages = [{"role": "user", "content": prompt}]
        create = self.client.chat.completions.create
        try:
            answer = create(model=self.model, messages=messages, temperature=0, max_tokens=200)
            return answer.choices[0].message.content or ""
        except (self.error, LookupError, TypeError, ValueError, AttributeError) as error:
            endpoint = f"language model {self.model!r} at {self.client.base_url}"
            raise OSError(f"{endpoint} did not answer: {error!r}") from error
