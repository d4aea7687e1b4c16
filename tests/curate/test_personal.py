"""Personal data by its form: planted items are found, look-alikes are not, check digits count."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.curate.filters import FILTERS, decide, thresholds
from taskmill.curate.personal import PERSONAL, accounts, addresses, emails, phones
from taskmill.errors import MissingExtra
from taskmill.recipes.curate import CurateConfig, curate
from taskmill.record import Example

pytest.importorskip("phonenumbers", reason='needs pip install "taskmill[personal]"')
pytest.importorskip("stdnum", reason='needs pip install "taskmill[personal]"')

# Numbers are of ranges set aside for drama and tests, or computed; nobody's.
PLANTED = {
    emails: ["ida.holm@tarn-harbour.no", "m+q@mail.tarn.co.uk", "IDA_1@TARN.ORG", "лев@почта.рф"],
    phones: [
        "+44 20 7946 0958", "+1 (212) 555-0142", "+49 30 23125 123", "+33 1 99 00 12 34", "+4915112345678",
    ],
    accounts: [
        "DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "FR1420041010050500013M02606",
        "4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005", "6011000990139424",
    ],
    addresses: ["8.8.8.8", "151.101.1.140", "2a00:1450:4001:81b::200e"],
}  # fmt: skip
HARMLESS = {
    emails: ["me@example.com", "a@b", "@tarn", "user@host.test", "1902 @ 3 pm", "x@localhost", "a@.com"],
    phones: [
        "+1", "2+2=4", "in 1902, +5 %", "+44 1", "call 5550142 today", "C++11 and C++ 17 2020 100 200",
    ],
    accounts: [
        "DE89 3704 0044 0532 0130 01", "GB82WEST12345698765431", "4111 1111 1111 1112", "1234567890123456",
        "AB12", "ISBN 978-3-16-148410-0", "3.141592653589793238", "order 5500000000000005", "0" * 16,
    ],
    addresses: [
        "192.168.0.1", "127.0.0.1", "10.0.0.12", "version 8.8.8.8", "v1.2.3.4", "256.1.1.1", "12:30:45",
        "1.2.3.4.5", "::", "a::b::c", "fe80::1", "section 1.2.3",
    ],
}  # fmt: skip


def planted(found):
    return [(find, item) for find, items in found.items() for item in items]


@pytest.mark.parametrize(("find", "item"), planted(PLANTED))
def test_planted_items_are_found_wherever_they_stand(find, item):
    for text in (item, f"Ask {item}.", f"({item}), or later", f"Text.\n{item}\nMore text of 1902."):
        assert len(list(find(text))) == 1, text


@pytest.mark.parametrize(("find", "item"), planted(HARMLESS))
def test_look_alikes_are_let_through(find, item):
    for text in (item, f"See {item}, or later."):
        assert list(find(text)) == [], text


def luhn(digits):
    """Return the check digit (ISO/IEC 7812-1, annex B), written from its definition."""
    doubled = [int(d) * 2 if i % 2 == 0 else int(d) for i, d in enumerate(reversed(digits))]
    return str(-sum(d // 10 + d % 10 for d in doubled) % 10)


@given(st.text("0123456789", min_size=14, max_size=14), st.integers(1, 9))
def test_a_card_is_found_by_its_check_digit_alone(middle, off):
    body = "4" + middle
    right = body + luhn(body)
    wrong = body + str((int(right[-1]) + off) % 10)
    assert list(accounts(f"Paid by {right}.")) == [right]
    assert list(accounts(f"Paid by {wrong}.")) == []


def iban(country, account):
    """Return an IBAN with its check digits (ISO 13616: modulo 97), written from its definition."""
    number = int("".join(str(int(c, 36)) for c in account + country + "00"))
    return f"{country}{98 - number % 97:02}{account}"


@given(st.text("0123456789", min_size=18, max_size=18), st.integers(1, 96))
def test_a_german_account_is_found_by_its_check_digits_alone(account, off):
    right = iban("DE", account)
    wrong = f"DE{(int(right[2:4]) - 2 + off) % 97 + 2:02}{account}"
    assert list(accounts(f"to {right} please")) == [right]
    assert list(accounts(f"to {wrong} please")) == []


@given(st.text(max_size=120))
def test_any_text_can_be_searched(text):
    for find in PLANTED:
        assert all(item in text for item in find(text))


def row(**parts):
    return Example(
        "a", "", parts.get("context", ""), parts.get("instruction", "Who?"), parts.get("response", "x")
    )


def test_items_are_counted_in_all_parts_of_a_row_and_each_once():
    score = FILTERS.get("email").score
    mail = "ida@tarn.no"
    for part in ("context", "instruction", "response"):
        found = score(row(**{part: f"write to {mail}"}))
        assert found == 1
        failed = decide({"email": found}, thresholds({}, ["email"]))
        assert str(failed[0].reason) == "personal_data"
    assert score(row(context=mail, response=f"{mail} and {mail}")) == 1
    assert score(row(context=mail, response="q@tarn.no")) == 2


def test_a_row_is_dropped_for_what_was_asked_and_no_more(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        '{"instruction": "Who?", "output": "ida@tarn.no"}\n'
        '{"instruction": "Where?", "output": "At 151.101.1.140"}\n'
        '{"instruction": "When?", "output": "In 1902"}\n'
    )
    config = CurateConfig((str(rows),), set={"email": ("0",), "phone": ("0",), "account": ("0",)})
    report = curate(config, tmp_path / "out")
    assert report["funnel"] == {"in": 3, "kept": 2, "dropped": {"personal_data": 1}}
    assert "email" not in curate(CurateConfig((str(rows),)), tmp_path / "plain")["filters"]


def test_a_filter_of_a_plug_in_is_one_like_ours(tmp_path):
    """The door for a named-entity tool or a classifier of insults: a score of a row, a bound, a reason."""
    from taskmill.curate.filters import Filter
    from taskmill.record import Reason

    def insults(row):  # stands for a classifier's probability
        return 0.9 if "fool" in row.response else 0.1

    FILTERS.register("insult", Filter("insult", insults, Reason.TOXIC, False, 0.5, "probability; most"))
    try:
        rows = tmp_path / "rows.jsonl"
        rows.write_text(
            '{"instruction": "Who?", "output": "You fool"}\n{"instruction": "Who?", "output": "Ida"}\n'
        )
        report = curate(CurateConfig((str(rows),), filters=("insult",)), tmp_path / "out")
    finally:
        FILTERS.unregister("insult")
    assert report["funnel"] == {"in": 2, "kept": 1, "dropped": {"toxic": 1}}


def test_the_filters_are_named_and_need_no_package_before_there_is_something_to_check(monkeypatch):
    assert [one.name for one in PERSONAL] == ["email", "phone", "account", "address"]
    monkeypatch.setitem(sys.modules, "phonenumbers", None)
    monkeypatch.setitem(sys.modules, "stdnum", None)
    assert list(phones("nothing here")) == list(accounts("nor here in 1902")) == []
    with pytest.raises(MissingExtra, match=r"taskmill\[personal\]"):
        list(phones("+44 20 7946 0958"))
    with pytest.raises(MissingExtra, match=r"taskmill\[personal\]"):
        list(accounts("4111 1111 1111 1111"))
