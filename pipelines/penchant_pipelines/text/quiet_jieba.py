"""jieba, imported without its warnings, and without the handler by which it writes to stderr."""

from __future__ import annotations

import logging
import warnings

with warnings.catch_warnings():
    # jieba has invalid escapes in its patterns and, where setuptools still ships it, imports pkg_resources.
    warnings.simplefilter("ignore")
    import jieba

jieba.setLogLevel(logging.CRITICAL)

__all__ = ["jieba"]
