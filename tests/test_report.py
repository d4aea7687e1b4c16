"""The report: complete, self-contained, safe with hostile rows, robust to a bare run folder."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_export import make_example, make_run

from taskmill.record import Dropped, Reason, Source
from taskmill.report import write_report
from taskmill.report.charts import histogram, stacked
from taskmill.report.words import compact, duration, highlight

HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)">{{ 7*7 }}{% raw %}</details>'
VOID = {"meta", "br", "img", "input", "rect", "link"}


class Page(HTMLParser):
    """Collects tags and attributes, and checks that every element is closed where it was opened."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID or tag == "rect":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


MANIFEST = {
    "name": "demo",
    "taskmill": "0.1.0",
    "status": "stopped",
    "exit": {"code": 3, "reason": "budget of 40 calls reached"},
    "command": ["taskmill", "run"],
    "seed": 1,
    "model": {"ref": "echo", "licence": "MIT"},
    "funnel": {"synthesize": {"in": 40, "kept": 30, "dropped": {"malformed": 10}}},
    "tasks": {
        "exqa": {
            "asked": 99,
            "requests": 40,
            "accepted": 12,
            "dropped": {"ungrounded": 5},
            "shortfall": "87 short",
        }
    },
    "calls": {"made": 40, "reused": 2, "failed": 1, "total": 42},
    "tokens": {"prompt": 12000, "completion": 900},
    "cost": 0.5,
    "elapsed_s": 90,
}


def page_of(run):
    text = write_report(run).read_text("utf-8")
    return text, Page(text)


@pytest.fixture
def run(tmp_path):
    examples = [make_example(i, task) for i in range(50) for task in ("exqa", "nli", "qa")]
    dropped = [
        Dropped(make_example(1000 + i), "check", reason, f"evidence {i}", 0.25)
        for i in range(20)
        for reason in (Reason.UNGROUNDED, Reason.COPY)
    ]
    return make_run(tmp_path / "run", examples, MANIFEST, dropped)


def test_the_page_tells_the_run(run):
    text, page = page_of(run)
    words = " ".join(" ".join(page.text).split())
    for part in (
        "demo",
        "stopped",
        "budget of 40 calls reached",
        "150",
        "12k",
        "0.50",
        "1 min 30 s",
        "87 short",
    ):
        assert part in words
    assert text.count('class="row"') == 60
    assert text.count("<mark>Genève</mark>") == 60
    assert text.count(">evidence ") == 16
    assert "exqa/0#abcd1234" in words
    assert "https://example.org/a.html" in words
    assert "PSF-2.0" in words


def test_the_page_needs_no_network(run):
    text, page = page_of(run)
    assert not [a for a in page.attributes if a[1] in ("src", "href", "srcset", "action")]
    assert not re.search(r"@import|url\(", text)
    assert "default-src 'none'" in text
    assert page.tags.count("script") == 1
    assert page.tags.count("style") == 1


def test_the_sample_is_shared_among_task_types_and_stable(run):
    text, page = page_of(run)
    shown = [value for tag, name, value in page.attributes if tag == "details" and name == "data-task"]
    assert {task: shown.count(task) for task in set(shown)} == {"exqa": 20, "nli": 20, "qa": 20}
    assert write_report(run).read_text("utf-8") == text


def test_hostile_rows_stay_text(tmp_path):
    example = make_example(
        1,
        HOSTILE,
        context=HOSTILE,
        instruction="{{context}} " + HOSTILE.replace("{{", "{ {"),
        response=HOSTILE,
        options=(HOSTILE,),
        rationale=HOSTILE,
    )
    dropped = [Dropped(make_example(2, HOSTILE, response=HOSTILE), HOSTILE, Reason.COPY, HOSTILE)]
    manifest = {"name": HOSTILE, "command": [HOSTILE], "status": HOSTILE, "model": {HOSTILE: HOSTILE}}
    run = make_run(tmp_path / "r", [example], manifest, dropped)
    (run / "config.yaml").write_text(HOSTILE)
    text, page = page_of(run)
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert (
        "49"
        not in re.sub(r"<(style|script)>.*?</\1>", "", text, flags=re.DOTALL)
        .split("<h1")[1]
        .split("</h1>")[0]
    )


def test_texts_choose_their_own_direction(tmp_path):
    run = make_run(tmp_path / "r", [make_example(1, context="القاهرة عاصمة مصر", response="القاهرة")])
    text, _ = page_of(run)
    assert '<p dir="auto"><mark>القاهرة</mark> عاصمة مصر</p>' in text


def test_a_bare_run_folder_is_enough(tmp_path):
    run = make_run(tmp_path / "r", [make_example(1)], manifest={})
    (run / "manifest.json").unlink()
    _, page = page_of(run)
    words = " ".join(" ".join(page.text).split())
    assert "curate 1 in 1 kept 100 %" in words
    assert "too_short" in words
    (tmp_path / "empty").mkdir()
    assert "empty" in page_of(tmp_path / "empty")[0]


def test_null_manifest_values_are_unknown_not_errors(tmp_path):
    manifest = dict.fromkeys(MANIFEST) | {"tasks": {"exqa": {"asked": None, "dropped": None}}}
    text, _ = page_of(make_run(tmp_path / "r", [make_example(1)], manifest))
    assert "–" in text


def test_the_page_shows_no_secrets(tmp_path):
    url = "https://user:secret@h.org/a?key=secret"
    example = make_example(1, source=Source("d", 0, 9, url=url))
    manifest = {"command": ["taskmill", url], "model": {"ref": url, "base_url": url}, "inputs": [url]}
    dropped = [Dropped(make_example(2), "call", Reason.COPY, f"503 from {url}")]
    run = make_run(tmp_path / "r", [example], manifest, dropped)
    (run / "config.yaml").write_text(f"sources:\n- {url}\n")
    text, _ = page_of(run)
    assert text.count("h.org") >= 6
    assert "secret" not in text


def test_passages_are_cut_for_display(tmp_path):
    long = make_example(1, context="word " * 5000 + "needle here" + " tail" * 5000, response="needle here")
    text, _ = page_of(make_run(tmp_path / "r", [long]))
    assert "<mark>needle here</mark>" in text
    assert len(text) < 60_000


@given(st.text(max_size=60), st.text(max_size=5))
def test_highlighting_keeps_short_passages_whole(passage, answer):
    before, span, after = highlight(passage, answer)
    assert before + span + after == passage
    assert span == "" or span == answer.strip()


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=50))
def test_histograms_count_every_row(values):
    drawn = histogram("passage", np.array(values, np.int64))
    assert sum(bar["count"] for bar in drawn["bars"]) == len(values)
    assert len(drawn["bars"]) <= 32
    assert max(bar["h"] for bar in drawn["bars"]) == 100


def test_bars_fill_their_width():
    bar = stacked({"kept": 1, "dropped": {"copy": 2, "empty": 0}}, {"copy": "r0", "empty": "r1"})
    assert [(s["label"], s["colour"]) for s in bar] == [("kept", "kept"), ("copy", "r0")]
    assert sum(s["percent"] for s in bar) == pytest.approx(100, abs=0.1)


def test_numbers_are_short():
    assert [compact(v) for v in (0, 7, 0.44, 999, 1200, 34_000, 5.6e6)] == [
        "0",
        "7",
        "0.4",
        "999",
        "1.2k",
        "34k",
        "5.6M",
    ]
    assert [duration(v) for v in (None, 4.2, 59, 190, 7500)] == [
        "–",
        "4.2 s",
        "59 s",
        "3 min 10 s",
        "2 h 5 min",
    ]
