"""Personal data in a row: e-mail addresses, phone numbers, accounts and cards, network addresses.

Only what its form gives away is found: numbers with check digits or a dialling plan, addresses with a syntax.
Names and street addresses are not: for those, a plug-in brings a named-entity tool (docs/verify.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import ip_address

from taskmill.curate.filters import FILTERS, Filter
from taskmill.errors import MissingExtra
from taskmill.record import Example, Reason

__all__ = ["PERSONAL", "accounts", "addresses", "emails", "phones"]

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w-])")
_RESERVED = ("example", "test", "invalid", "localhost")  # RFC 2606: they are nobody's
_PLUS = re.compile("[++]")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}\b")
_CARD = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d.]?\d)")
# Visa, Mastercard, American Express, Discover: their first digits (ISO/IEC 7812) and lengths.
_NETWORKS = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"
    r"|3[47]\d{13}|6(?:011|5\d\d|4[4-9]\d)\d{12}"
)
_ADDRESS = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7})(?![\w:]|\.\d)"
)
_VERSION = re.compile(r"(?:version|release|v)\.?\s*$", re.IGNORECASE)


def emails(text: str) -> Iterator[str]:
    """Yield e-mail addresses; those of names reserved for documentation (RFC 2606) are nobody's."""
    for match in _EMAIL.finditer(text):
        host = match[0].partition("@")[2].lower()
        if not any(label in _RESERVED for label in host.split(".")[-2:]):
            yield match[0]


def phones(text: str) -> Iterator[str]:
    """Yield phone numbers in international form (+49 …) that a country's numbering plan has.

    Numbers in a national form look like any other number and are not found. Raises MissingExtra.
    """
    if not _PLUS.search(text):
        return
    try:
        from phonenumbers import Leniency, PhoneNumberMatcher
    except ImportError as error:
        raise MissingExtra("phonenumbers", "personal") from error
    for match in PhoneNumberMatcher(text, None, leniency=Leniency.VALID):
        yield match.raw_string


def accounts(text: str) -> Iterator[str]:
    """Yield IBANs and card numbers whose check digits are right. Raises MissingExtra."""
    candidates = [*_IBAN.finditer(text), *_CARD.finditer(text)]
    if not candidates:
        return
    try:
        from stdnum import iban, luhn
    except ImportError as error:
        raise MissingExtra("python-stdnum", "personal") from error
    for match in candidates:
        compact = re.sub(r"[ -]", "", match[0])
        if compact[0].isalpha():
            if _begins_with_iban(compact, iban.is_valid):
                yield match[0]
        elif _NETWORKS.fullmatch(compact) and luhn.is_valid(compact):
            yield match[0]


def _begins_with_iban(compact: str, is_valid: Callable[[str], bool]) -> bool:
    """Say whether an IBAN stands at the beginning: a word in capitals behind it may have been taken along."""
    return any(is_valid(compact[:length]) for length in range(15, min(len(compact), 34) + 1))


def addresses(text: str) -> Iterator[str]:
    """Yield IP addresses that are somebody's: not private, local or reserved ones, nor version numbers."""
    for match in _ADDRESS.finditer(text):
        if _VERSION.search(text, max(0, match.start() - 12), match.start()):
            continue
        try:
            if ip_address(match[0]).is_global:
                yield match[0]
        except ValueError:
            continue


def _count(find: Callable[[str], Iterator[str]]) -> Callable[[Example], float]:
    def count(example: Example) -> float:
        texts = (example.instruction, example.context, example.response)
        return float(len({found for text in texts for found in find(text)}))

    return count


PERSONAL = tuple(
    Filter(name, _count(find), Reason.PERSONAL_DATA, False, 0, f"{about}; most", by_default=False)
    for name, find, about in (
        ("email", emails, "e-mail addresses in the row"),
        ("phone", phones, "phone numbers in international form in the row"),
        ("account", accounts, "IBANs and card numbers with right check digits in the row"),
        ("address", addresses, "public IP addresses in the row"),
    )
)
for _one in PERSONAL:
    FILTERS.register(_one.name, _one)
