"""How many tokens a text has, estimated offline, without any tokenizer.

Against SmolLM2's tokenizer (49k entries, English), estimate / true count:

    English, 903 passages of 128 tokens or more from public corpora, among those the costs were fitted to:
        median 1.06, 1st to 99th percentile 0.92 to 1.16; within 15 % for 98 %; too low for 9 %, by more
        than 5 % for 2 %
    other scripts (XQuAD): Arabic 1.24, Chinese 1.15, Greek 1.16, Hindi 1.11, Russian 1.30, Thai 1.16,
        Vietnamese 1.17
    other languages in Latin script, which that tokenizer splits finely, come out too low:
        German 0.70, Spanish 0.82, Romanian 0.86, Turkish 0.93
    hardest English: tweets (user names, hashtags, emoji) 0.84
"""

from __future__ import annotations

import zlib

__all__ = ["COST_PER_TOKEN", "MAX_TOKENS_PER_CHARACTER", "cost", "count_tokens"]

COST_PER_TOKEN = 100
MAX_TOKENS_PER_CHARACTER = 4  # no character costs more: four bytes, one token each

# Cost of each byte of the UTF-8 form, in hundredths of a token. ASCII: least squares on 2,300 English
# passages, raised by 7 % so that the estimate is rarely too low. Other scripts: a high rate of the same
# tokenizer on XQuAD; their continuation bytes cost 50 each.
_ASCII = [
    (190, "".join(map(chr, range(32))) + "\x7f"),
    (85, " "),
    (95, "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"),
    (100, "0123456789"),
    (26, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    (6, "abcdefghijklmnopqrstuvwxyz"),
]
_LEADS = [
    (50, range(0x80, 0xC0)),  # continuation
    (250, range(0xC0, 0xCA)),  # Latin with marks, Latin-1 signs
    (50, range(0xCA, 0xD5)),  # Greek, Cyrillic
    (75, range(0xD5, 0xE0)),  # Hebrew, Arabic
    (120, range(0xE0, 0xE1)),  # Indic, Thai, Lao
    (200, range(0xE1, 0xE2)),  # Vietnamese, Georgian, Khmer, Ethiopic
    (100, range(0xE2, 0xE3)),  # typographic signs
    (110, range(0xE3, 0xEA)),  # Kana, Han
    (170, range(0xEA, 0xF0)),  # Hangul, full-width forms
    (250, range(0xF0, 0x100)),  # emoji, rare scripts
]
_DEVANAGARI = b"\xe0\xa4", b"\xe0\xa5"  # the one Indic script for which the tokenizer has letters of its own
_DEVANAGARI_DISCOUNT = 90


def _price_table() -> bytes:
    table = bytearray(256)
    for price, characters in _ASCII:
        for character in characters:
            table[ord(character)] = price
    for price, leads in _LEADS:
        for lead in leads:
            table[lead] = price
    return bytes(table)


_PRICES = _price_table()
_BLOCK = 256  # the longest run of bytes whose sum adler32 cannot wrap (256 * 255 < 65521)


def cost(text: str) -> int:
    """Return the estimate in hundredths of a token: a sum over characters, so the costs of parts add up."""
    data = text.encode("utf-8", "surrogatepass")
    prices = data.translate(_PRICES)
    # The low half of adler32(data, 0) is the sum of the bytes modulo 65521: the fastest sum in the standard
    # library (1 µs for 60 words; counting character classes takes 5, a regular expression over words 15).
    adler32 = zlib.adler32
    if len(prices) <= _BLOCK:
        total = adler32(prices, 0) & 0xFFFF
    else:
        total = 0
        for start in range(0, len(prices), _BLOCK):
            total += adler32(prices[start : start + _BLOCK], 0) & 0xFFFF
    if _DEVANAGARI[0] in data:
        total -= _DEVANAGARI_DISCOUNT * sum(map(data.count, _DEVANAGARI))
    return total


def count_tokens(text: str) -> int:
    """Estimate the number of tokens of `text`."""
    return -(-cost(text) // COST_PER_TOKEN)
