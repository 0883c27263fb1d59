"""Characters of the scripts that are written without spaces, as ranges for a regular expression's brackets."""

HAN = r"\u3400-\u4dbf\u4e00-\u9fff"
"""Those of Chinese text, and of Japanese; not the rare ones beyond the first plane."""
KANA = r"\u3041-\u30ff"

__all__ = ["HAN", "KANA"]
