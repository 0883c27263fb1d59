"""What a generative model may do instead of answering."""

from __future__ import annotations


class ModelFailed(Exception):
    """No answer was had. `retry_after` (s): the least pause that was asked for, 0 where none was.

    `lasting`: the model is there, but won't have this text; to ask again at once is no use.
    """

    def __init__(self, message: str, retry_after: float = 0.0, lasting: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.lasting = lasting
