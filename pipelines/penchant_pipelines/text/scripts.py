"""Characters of some kinds, as ranges for a regular expression's brackets."""

import unicodedata

HAN = r"\u3400-\u4dbf\u4e00-\u9fff"
"""Those of Chinese, and of Japanese, which are written without spaces; not the rare ones beyond the first plane."""
KANA = r"\u3041-\u30ff"
"""Those of Japanese alone, which are so, too."""
JOINED = "".join(char for char in map(chr, range(0x300, 0x2000)) if unicodedata.category(char) in {"Mn", "Mc"})
"""Vowels of Hindi or Thai, say, and accents that no letter has in it: they are part of a word, but none to `\\w`."""

__all__ = ["HAN", "JOINED", "KANA"]
