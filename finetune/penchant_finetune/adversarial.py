"""Adversarially generated embeddings: inputs moved a little in the direction that hurts most.

The fast gradient method (Miyato et al. 2017): one pass finds the gradient at each text's input embeddings, a second
one trains on embeddings moved along it by a small fixed length, in addition to the first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

RADIUS = 0.1
"""Length of the move, as a share of the length of the text's embeddings (Frobenius norm)."""


class InputNoise:
    """Listens at a model's input embeddings: takes down gradients, then adds the moves made from them.

    With gradient caching, texts pass first without gradients and then, in the same order, with them; the n-th pass
    of either kind is of the same texts.
    """

    def __init__(self, embedding: nn.Module) -> None:
        self._moving = False
        self._moves: list[Tensor | None] = []
        self._counts = {True: 0, False: 0}
        embedding.register_forward_hook(self._hear)

    def listen(self) -> None:
        """From here on take down gradients."""
        self._start(moving=False)
        self._moves.clear()

    def move(self) -> None:
        """From here on add the moves."""
        self._start(moving=True)

    def stop(self) -> None:
        """From here on leave embeddings as they are."""
        self.move()
        self._moves.clear()

    def _start(self, *, moving: bool) -> None:
        self._moving = moving
        self._counts = {True: 0, False: 0}

    def _hear(self, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        graded = torch.is_grad_enabled()
        number = self._counts[graded]
        self._counts[graded] += 1
        if self._moving:
            move = self._moves[number] if number < len(self._moves) else None
            return output if move is None else output + move
        if not graded:
            return output
        heard = output.detach().requires_grad_()
        self._moves.append(None)

        def take_down(gradient: Tensor) -> None:
            norms = gradient.flatten(1).norm(dim=1).clamp_min(1e-12)
            lengths = heard.detach().flatten(1).norm(dim=1)
            self._moves[number] = gradient * (RADIUS * lengths / norms)[:, None, None]

        heard.register_hook(take_down)  # type: ignore[no-untyped-call]
        return heard
