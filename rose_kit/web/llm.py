"""Language models behind any endpoint that speaks OpenAI's API; without one, rules do."""

import os

NO_MODEL = "no language model: the gate decides by rules, and answers are read from pages by rules"


class LanguageModel:
    """prompt -> answer, by an OpenAI-compatible endpoint: OpenAI, Gemini, vLLM, Ollama.

    Args:
        model: its name there.
        url: of the endpoint; else the variable OPENAI_BASE_URL, else OpenAI's own.
        key: else the variable OPENAI_API_KEY; servers of one's own need none.
        seconds: for an answer.
        retries: after time-outs, 429 and 5xx.

    Raises:
        ImportError: the extra `llm` is not installed.
        ValueError: OpenAI's own endpoint, and no key.
    """

    def __init__(
        self,
        model: str,
        url: str | None = None,
        key: str | None = None,
        seconds: float = 30.0,
        retries: int = 1,
    ) -> None:
        try:
            import openai
        except ImportError as error:
            raise ImportError("language models need the extra 'llm': pip install 'rose_kit[llm]'") from error
        url, key = url or os.environ.get("OPENAI_BASE_URL"), key or os.environ.get("OPENAI_API_KEY")
        if not (url or key):
            raise ValueError(f"model {model!r} needs OPENAI_BASE_URL or OPENAI_API_KEY")
        self.model, self.failures = model, (openai.OpenAIError, LookupError, TypeError, ValueError)
        self.client = openai.OpenAI(base_url=url, api_key=key or "none", timeout=seconds, max_retries=retries)

    def __call__(self, prompt: str) -> str:
        """The answer, at temperature 0; OSError: the endpoint is away, refuses, is slow or says nothing."""
        messages = [{"role": "user", "content": prompt}]
        create = self.client.chat.completions.create
        try:
            answer = create(model=self.model, messages=messages, temperature=0, max_tokens=200)
            return answer.choices[0].message.content or ""
        except (*self.failures, AttributeError) as error:
            where = f"language model {self.model!r} at {self.client.base_url}"
            raise OSError(f"{where} did not answer: {error!r}") from error
