"""The response's language: planted answers in a wrong one are found, right and short ones are let through."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.curate.filters import FILTERS, decide, thresholds
from taskmill.curate.language import LANGUAGE, agreement, language_code
from taskmill.errors import MissingExtra
from taskmill.recipes.curate import CurateConfig, curate
from taskmill.record import Example

pytest.importorskip("py3langid", reason='needs pip install "taskmill[language]"')

SAID = {  # (passage, an answer to a question about it)
    "en": ("The old ferry crosses the bay twice a day; in winter it only sails when the ice is thin enough.",
           "It sails only when the ice is thin enough"),
    "de": ("Die alte Fähre überquert die Bucht zweimal am Tag, und im Winter fährt sie nur bei dünnem Eis.",
           "Im Winter fährt das Schiff nur, wenn das Eis dünn genug ist"),
    "fr": ("Le vieux bac traverse la baie deux fois par jour; en hiver il ne part que si la glace est mince.",
           "En hiver, le bateau ne part que si la glace est assez mince"),
    "es": ("El viejo transbordador cruza la bahía dos veces al día; en invierno solo sale si hay poco hielo.",
           "En invierno el barco solo sale cuando el hielo es bastante fino"),
    "it": ("Il vecchio traghetto attraversa la baia due volte al giorno; d'inverno parte con poco ghiaccio.",
           "D'inverno la nave parte soltanto quando il ghiaccio è sottile"),
    "nl": ("De oude veerboot steekt de baai twee keer per dag over en vaart in de winter alleen bij dun ijs.",
           "In de winter vaart de boot alleen als het ijs dun genoeg is"),
    "ru": ("Старый паром пересекает залив два раза в день, а зимой ходит только при тонком льде.",
           "Зимой судно ходит только тогда, когда лёд достаточно тонкий"),
    "tr": ("Eski feribot körfezi günde iki kez geçer ve kışın yalnızca buz yeterince inceyse yola çıkar.",
           "Kışın gemi yalnızca buz yeterince ince olduğunda yola çıkar"),
    "el": ("Το παλιό πλοίο διασχίζει τον κόλπο δύο φορές την ημέρα· τον χειμώνα φεύγει με λεπτό πάγο.",
           "Τον χειμώνα το πλοίο φεύγει μόνο όταν ο πάγος είναι λεπτός"),
    "zh": ("老渡轮每天两次横渡海湾。冬天只有在冰层足够薄的时候才会开航。",
           "冬天只有当海湾里的冰层变得足够薄的时候这艘船才会重新开航"),
}  # fmt: skip


def example(passage, response, meta="{}"):
    return Example("a", "", passage, "{{context}}\n\n?", response, meta=meta)


def refused(row):
    return decide({"language": agreement(row)}, thresholds({}, ["language"])) is not None


def test_planted_answers_in_another_language_are_all_found_and_no_right_one_is_refused():
    wrong = [(p, SAID[b][1]) for a, (p, _) in SAID.items() for b in SAID if a != b]
    assert len(wrong) == 90
    assert [pair for pair in wrong if not refused(example(*pair))] == []
    assert [lang for lang, pair in SAID.items() if refused(example(*pair))] == []


@pytest.mark.parametrize(
    "response", ["", "Marta Quist", "1902", "Yes", "№ 12,50 €", "ICE 578", SAID["en"][0][:41], "x" * 19]
)
def test_names_numbers_and_pieces_of_the_passage_are_not_judged(response):
    assert agreement(example(SAID["en"][0], response)) is None


def test_what_the_user_asked_for_counts_before_the_passage():
    asked = {"de": '{"answer_language": "German"}', "fr": '{"answer_language":"fr-CA"}'}
    for lang, meta in asked.items():
        assert not refused(example(SAID["en"][0], SAID[lang][1], meta))
        assert refused(example(SAID["en"][0], SAID["en"][1], meta))
    assert agreement(example(SAID["en"][0], SAID["en"][1], '{"answer_language": "Klingon"}')) is None


def test_without_a_passage_the_instruction_is_followed():
    asked = "Please say in one sentence when the old ferry sails in winter."
    assert refused(Example("a", "", "", asked, SAID["ru"][1]))
    assert not refused(Example("a", "", "", asked, SAID["en"][1]))
    assert agreement(Example("a", "", "", "?", SAID["en"][1])) is None


def test_languages_are_known_by_name_and_code():
    assert [language_code(n) for n in ("German", " german", "de", "DE-at", "pt_BR", "Haitian Creole")] == [
        "de", "de", "de", "de", "pt", "ht",
    ]  # fmt: skip
    assert language_code("Deutsch") == language_code("") == ""


def test_every_language_a_user_can_ask_for_is_known_to_the_identifier():
    from taskmill.curate.language import _codes, _identifier

    assert len(set(_codes().values())) > 80
    assert set(_codes().values()) <= set(_identifier().labels)


@given(
    st.text(max_size=80), st.text(max_size=80), st.sampled_from(["{}", '{"answer_language": 3}', "[", "[]"])
)
def test_any_text_gives_a_share_or_nothing(passage, response, meta):
    found = agreement(example(passage, response, meta))
    assert found is None or 0 <= found <= 1


def test_it_is_scored_where_it_is_named_only(tmp_path):
    rows = tmp_path / "rows.jsonl"
    row = {"instruction": "When does the old ferry sail in winter, please?", "output": SAID["de"][1]}
    rows.write_text(json.dumps(row) + "\n")
    plain = curate(CurateConfig((str(rows),)), tmp_path / "plain")
    assert "language" not in plain["filters"]
    for name, config in {
        "set": CurateConfig((str(rows),), set={"language": ("0.1",)}),
        "filters": CurateConfig((str(rows),), filters=("language",)),
    }.items():
        report = curate(config, tmp_path / name)
        assert report["funnel"]["dropped"] == {"off_language": 1}
    assert FILTERS.get("language") is LANGUAGE


def test_without_the_package_the_extra_is_named(monkeypatch):
    from taskmill.curate import language

    language._identifier.cache_clear()
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(MissingExtra, match=r"taskmill\[language\]"):
        agreement(example(*SAID["en"]))
