"""`embed`: texts to vectors, in this process; no server takes part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from penchant import jsonl
from penchant.cli.errors import describe, fail
from penchant.cli.files import whole_file
from penchant.cli.options import INPUT_FILE, Commands
from penchant.cli.output import print_line, progress
from penchant.exceptions import InvalidInputError

# Enough for the encoder to sort by length, few enough to see it move.
_CHUNK = 512


def register(app: Commands) -> None:
    """Add the command."""
    app.command()(embed)


def embed(
    source: Annotated[Path, INPUT_FILE],
    output: Annotated[Path, typer.Argument(metavar="OUT.npy", dir_okay=False, help="Where the vectors go.")],
) -> None:
    """Encode texts with the embedded encoder: float32 (n, d) unit vectors, a row per line with its `text`."""
    # Here, not above: these take seconds to load, and no other command needs them.
    import numpy as np

    from penchant_pipelines.encoder import EncoderSettings, open_encoder
    from penchant_pipelines.text import TextPipeline, TextSettings

    pipeline = TextPipeline(TextSettings())
    encoder = open_encoder(EncoderSettings())
    chunks = [np.zeros((0, encoder.dimensions), dtype=np.float32)]
    with jsonl.open_source(source) as opened, progress("encoding", opened.size) as moved:
        for texts in _chunks(_texts(opened, lambda text: pipeline.read(text).text)):
            chunks.append(encoder.encode(texts))
            moved(opened.position)
    vectors = np.concatenate(chunks)
    with whole_file(output) as place, place.open("wb") as file:
        np.save(file, vectors)
    print_line(f"{len(vectors)} vectors of {vectors.shape[1]} numbers in {output} ({encoder.space_id})")


def _chunks(texts: Iterator[str]) -> Iterator[list[str]]:
    while chunk := list(islice(texts, _CHUNK)):
        yield chunk


def _texts(source: jsonl.Source, clean: Callable[[str], str]) -> Iterator[str]:
    for line in jsonl.read_objects(source):
        if isinstance(line.content, InvalidInputError):
            fail(f"line {line.number}: {describe(line.content)}")
        text = line.content.get("text")
        if not isinstance(text, str):
            fail(f"line {line.number}: text: must be a string")
        try:
            yield clean(text)
        except ValueError as error:
            fail(f"line {line.number}: text: {error}")
