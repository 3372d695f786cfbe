"""Texts for property tests: random sequences of pieces that tokenizers treat differently."""

from hypothesis import strategies as st

from service.engine.probes import probes

WORDS = list(dict.fromkeys(word for _, context in probes() for word in context.split()))[:60]
SPACES = [" ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "\u2028"]
IGNORED = ["\x00", "\x07", "\u200b", "\ufeff", "\u00ad", "\u200d"]  # removed by some tokenizers
SCRIPTS = [
    "\u6771\u4eac\u306f\u65e5\u672c\u306e\u9996\u90fd\u3067\u3059\u3002",  # Japanese
    "\u30ab\u30bf\u30ab\u30ca",
    "\u4e2d\u56fd",
    "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22\u0e19\u0e49\u0e33",  # Thai
    "\ud55c\uad6d\uc5b4",  # Korean
    "\u041c\u043e\u0441\u043a\u0432\u0430",
    "\u03a3\u03bf\u03c6\u03cc\u03c2",
    "\u0627\u0644\u0642\u0627\u0647\u0631\u0629",
    "\u05d9\u05e8\u05d5\u05e9\u05dc\u05d9\u05dd",
    "\u0130stanbul",
    "stra\u00dfe",
    "\ufb01ne",  # a ligature
    "\uff21\uff22",  # full width
    "\u00bd",
]
# Extended grapheme clusters of more than one code point (UAX #29).
CLUSTERS = [
    "e\u0301",
    "Z\u0351\u036b\u0343",
    "\u1112\u1161\u11ab",  # Hangul jamo
    "\ud558\u11ab",  # a Hangul syllable and a final jamo
    "\u0928\u093f",  # Devanagari with a vowel sign
    "\u0915\u094d\u0937",  # a Devanagari conjunct
    "\u0b95\u0bcd",
    "\u0e01\u0e33",
    "\U0001f44d\U0001f3fd",  # with skin tone
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",  # joined
    "\U0001f1ef\U0001f1f5",  # a flag
    "\U0001f1eb\U0001f1f7\U0001f1e9\U0001f1ea",  # two
    "1\ufe0f\u20e3",
    "\u2764\ufe0f",
]
SPECIALS = [
    "[SEP]",
    "[CLS]",
    "[MASK]",
    "[UNK]",
    "[MASK",
    "<s>",
    "</s>",
    "<mask>",
    "<pad>",
    "\u2581",
    "##ing",
    "\u0120",
]
MARKS = ["USA", "don't", "e-mail@x.org", "$3.5m", "1,000", '"', "(", "...", "\u2014", "\u0301"]
PIECES = [*WORDS, *SPACES, *IGNORED, *SCRIPTS, *CLUSTERS, *SPECIALS, *MARKS]

TEXTS = st.lists(st.sampled_from(PIECES) | st.just(" ") | st.text(max_size=6), max_size=40).map("".join)
