"""The ledger: what was paid is there again, whole, whatever happened to the process."""

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.calls import Completion
from taskmill.durable import on_write
from taskmill.errors import LedgerError
from taskmill.ledger import Ledger
from taskmill.record import content_id


def answer(i, text=None):
    words = f"reply {i}\n\t\u2028 ok" if text is None else text
    return Completion(content_id(str(i)), words, "stop", i, 2 * i)


def test_completions_survive_reopening(tmp_path):
    with Ledger(tmp_path / "l", "run") as ledger:
        ledger.append([answer(i) for i in range(100)])
        assert ledger.get(answer(7).key) == answer(7)
    with Ledger(tmp_path / "l", "run") as ledger:
        assert len(ledger) == 100
        assert [ledger.get(answer(i).key) for i in range(100)] == [answer(i) for i in range(100)]
        assert ledger.get(content_id("never")) is None
        assert (ledger.spent_calls, ledger.spent_prompt, ledger.spent_completion) == (100, 4950, 9900)


def test_spending_is_told_apart_by_run(tmp_path):
    with Ledger(tmp_path, "one") as ledger:
        ledger.append([answer(1)])
    with Ledger(tmp_path, "two") as ledger:
        assert ledger.get(answer(1).key) == answer(1)
        assert ledger.spent_calls == 0


def test_failed_calls_are_spent_but_are_no_answers(tmp_path):
    failed = Completion(content_id("x"), finish="error", error="503")
    with Ledger(tmp_path, "r") as ledger:
        ledger.append([failed])
        assert ledger.get(content_id("x")) is None
    with Ledger(tmp_path, "r") as ledger:
        assert ledger.get(content_id("x")) is None
        assert ledger.spent_calls == 1
        ledger.append([Completion(content_id("x"), "at last")])
    with Ledger(tmp_path, "r") as ledger:
        assert ledger.get(content_id("x")).text == "at last"


def test_an_upload_that_fails_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("taskmill.ledger.time.sleep", lambda s: None)
    url, outbox = "memory://ledgers/flaky", tmp_path / "outbox"
    ledger = Ledger(url, "r", outbox=outbox)
    put, tries = ledger._remote.fs.put_file, []

    def once_in_three(*words):
        tries.append(words)
        if len(tries) % 3:
            raise OSError("503 slow down")
        return put(*words)

    monkeypatch.setattr(ledger._remote.fs, "put_file", once_in_three)
    ledger.append([answer(i) for i in range(50)])
    ledger.close()
    assert len(tries) == 3
    with Ledger(url, "r", outbox=outbox) as ledger:
        assert len(ledger) == 50


def test_a_store_that_stays_away_leaves_the_records_in_the_outbox(tmp_path, monkeypatch):
    monkeypatch.setattr("taskmill.ledger.time.sleep", lambda s: None)
    url, outbox = "memory://ledgers/away", tmp_path / "outbox"

    def away(*words):
        raise OSError("503")

    ledger = Ledger(url, "r", outbox=outbox)
    with monkeypatch.context() as patch:
        patch.setattr(ledger._remote.fs, "put_file", away)
        ledger.append([answer(1)])
        with pytest.raises(LedgerError, match="the records are safe in"):
            ledger.close()
    with Ledger(url, "other") as elsewhere:
        assert elsewhere.get(answer(1).key) is None
    with Ledger(url, "r", outbox=outbox) as again:
        assert again.get(answer(1).key) == answer(1)
        assert not list(outbox.glob("*.ledger"))
    with Ledger(url, "other") as elsewhere:
        assert elsewhere.get(answer(1).key) == answer(1)


def test_a_killed_session_leaves_its_records_for_the_next_to_upload(tmp_path):
    import os

    url, outbox = f"file://{tmp_path}/shared", tmp_path / "outbox"
    pid = os.fork()
    if not pid:
        ledger = Ledger(url, "r", outbox=outbox)
        ledger.append([answer(i) for i in range(7)])
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    with Ledger(url, "r", outbox=outbox) as ledger:
        assert len(ledger) == 7
    with Ledger(url, "other", outbox=tmp_path / "second") as ledger:
        assert len(ledger) == 7


@given(cut=st.integers(1, 400))
@settings(max_examples=40, deadline=None)
def test_a_torn_tail_loses_only_the_torn_records(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("torn")
    with Ledger(folder, "r") as ledger:
        ledger.append([answer(i, "x" * 40) for i in range(5)])
    segment = next(folder.glob("*.ledger"))
    data = segment.read_bytes()
    segment.write_bytes(data[: max(0, len(data) - cut)])
    whole = segment.read_bytes().count(b"\n")
    with Ledger(folder, "r") as ledger:
        assert len(ledger) == whole
        ledger.append([answer(9)])
    with Ledger(folder, "r") as ledger:
        assert len(ledger) == whole + 1
        assert ledger.get(answer(9).key) == answer(9)


@given(place=st.integers(0, 10_000), byte=st.integers(0, 255))
@settings(max_examples=60, deadline=None)
def test_a_flipped_byte_never_gives_a_wrong_answer(tmp_path_factory, place, byte):
    folder = tmp_path_factory.mktemp("flip")
    with Ledger(folder, "r") as ledger:
        ledger.append([answer(i) for i in range(5)])
    segment = next(folder.glob("*.ledger"))
    data = bytearray(segment.read_bytes())
    data[place % len(data)] = byte
    segment.write_bytes(data)
    with Ledger(folder, "r") as ledger:
        for i in range(5):
            assert ledger.get(answer(i).key) in (None, answer(i))


def test_many_records_stay_findable_after_merging(tmp_path, monkeypatch):
    monkeypatch.setattr("taskmill.ledger._MERGE", 64)
    with Ledger(tmp_path, "r") as ledger:
        for start in range(0, 1000, 10):
            ledger.append([answer(i) for i in range(start, start + 10)])
        assert all(ledger.get(answer(i).key) == answer(i) for i in range(1000))
    with Ledger(tmp_path, "r") as ledger:
        assert len(ledger) == 1000
        assert all(ledger.get(answer(i).key) == answer(i) for i in range(1000))


def test_keys_that_share_64_bits_are_told_apart(tmp_path):
    a, b = "0" * 16 + "a" * 16, "0" * 16 + "b" * 16
    with Ledger(tmp_path, "r") as ledger:
        ledger.append([Completion(a, "A"), Completion(b, "B")])
    with Ledger(tmp_path, "r") as ledger:
        assert (ledger.get(a).text, ledger.get(b).text) == ("A", "B")
        assert ledger.get("0" * 16 + "c" * 16) is None


def test_two_sessions_write_one_folder(tmp_path):
    with Ledger(tmp_path, "one") as one, Ledger(tmp_path, "two") as two:
        one.append([answer(1)])
        two.append([answer(2)])
    with Ledger(tmp_path, "three") as ledger:
        assert {c.text for _, _, c in ledger.records()} == {answer(1).text, answer(2).text}


def test_a_full_disk_is_told_and_leaves_whole_records(tmp_path):
    with Ledger(tmp_path, "r") as ledger:
        ledger.append([answer(1)])

        def full(point):
            if point == "ledger append":
                raise OSError(errno.ENOSPC, "No space left on device")

        on_write(full)
        try:
            with pytest.raises(LedgerError, match="make room and run the same command again"):
                ledger.append([answer(2)])
        finally:
            on_write(None)
        ledger.append([answer(3)])
    with Ledger(tmp_path, "r") as ledger:
        assert ledger.torn == 0
        assert [ledger.get(answer(i).key) is not None for i in (1, 2, 3)] == [True, False, True]


def test_a_remote_ledger_on_any_fsspec_url(tmp_path, monkeypatch):
    import fsspec

    url = "memory://ledgers/one"
    monkeypatch.setenv("TASKMILL_CACHE_DIR", str(tmp_path))
    with Ledger(url, "r") as ledger:
        ledger.append([answer(1), answer(2)])
        assert ledger.get(answer(1).key) == answer(1)
        ledger.sync()
        ledger.append([answer(3)])
    names = fsspec.filesystem("memory").ls("/ledgers/one", detail=False)
    assert len(names) == 2
    with Ledger(url, "r") as ledger:
        assert [ledger.get(answer(i).key) for i in (1, 2, 3)] == [answer(1), answer(2), answer(3)]
        copies = ledger._remote.copies
    assert not copies.exists()


def test_an_unusable_location_is_an_error_with_the_place(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="cannot open the ledger"):
        Ledger(tmp_path / "file", "r")
    with pytest.raises(LedgerError, match="nosuchprotocol"):
        Ledger("nosuchprotocol://x", "r")
