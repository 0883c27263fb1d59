"""The process of a local model: each line on stdin asks, each on stdout answers; both are JSON.

In: `[instructions, text]`. Out: `[answer, ""]` or `["", error]`; the first, before anything is asked, tells whether
the model is loaded.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

MOST_TOKENS = 200
LEAST_PRIORITY = 19

Complete = Callable[[str, str], str]


def main() -> None:
    """Answer until stdin ends, as it does when the server is gone."""
    os.nice(LEAST_PRIORITY)
    # Libraries may print what they like: it doesn't get between the answers.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", buffering=1) as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        for answer in _answers(sys.argv[1]):
            answers.write(json.dumps(answer) + "\n")


def _answers(folder: str) -> Iterator[tuple[str, str]]:
    try:
        complete = load(folder)
    except Exception as error:
        yield "", f"it can't be loaded: {type(error).__name__}: {error}"
        return
    yield "", ""
    for line in sys.stdin:
        try:
            yield complete(*json.loads(line)), ""
        except Exception as error:
            # Without its message, which may repeat the text.
            yield "", type(error).__name__


def load(folder: str) -> Complete:
    """The model in a folder, on the GPU where there is one: instructions and text to an answer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype="auto")
    model.to(device).eval()

    def complete(instructions: str, text: str) -> str:
        # In one message: not every model's template knows of a system's.
        prompt = f"{instructions}\n\n{text}"
        if tokenizer.chat_template:
            message = [{"role": "user", "content": prompt}]
            prompt = tokenizer.apply_chat_template(
                message, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        inputs = tokenizer(
            prompt, return_tensors="pt", add_special_tokens=not tokenizer.chat_template, return_token_type_ids=False
        ).to(device)
        with torch.inference_mode():
            tokens = model.generate(**inputs, max_new_tokens=MOST_TOKENS, do_sample=False)
        return str(tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))

    return complete


if __name__ == "__main__":
    main()
