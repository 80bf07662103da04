"""Names, families and scripts of language codes."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ilo_fast import load_corpus
from ilo_fast.corpora import language, order_languages
from ilo_fast.corpora.languages import PAPER_LANGUAGES, script_of


def test_the_paper_has_31_languages():
    assert len(PAPER_LANGUAGES) == 31
    # fmt: off
    assert set(PAPER_LANGUAGES) == {
        "ban_Latn", "ben_Beng", "bjn_Latn", "ces_Latn", "dan_Latn", "deu_Latn", "eng_Latn",
        "fra_Latn", "gle_Latn", "hin_Deva", "ind_Latn", "jav_Latn", "jpn_Jpan", "min_Latn",
        "nld_Latn", "pol_Latn", "rus_Cyrl", "sin_Sinh", "slv_Latn", "spa_Latn", "srp_Cyrl",
        "sun_Latn", "swe_Latn", "swh_Latn", "tel_Telu", "tgl_Latn", "tha_Thai", "ukr_Cyrl",
        "urd_Arab", "yue_Hant", "zho_Hans",
    }
    # fmt: on


def test_all_of_the_paper_and_the_demo_are_known():
    codes = {*PAPER_LANGUAGES, *load_corpus("demo").languages}
    known = [language(code) for code in codes]
    assert all(entry.family != "other" and entry.name != entry.code for entry in known)
    assert all(entry.script == entry.code.split("_")[1] for entry in known)
    assert len({entry.name for entry in known}) == len(codes)


def test_unknown_codes_keep_their_script():
    unknown = language("tat_Cyrl")
    assert (unknown.name, unknown.family, unknown.script) == ("tat_Cyrl", "other", "Cyrl")
    assert language("klingon").script == "other"
    assert [script_of(code) for code in ("", "_", "Latn", "x_latn", "zh-Hant-TW")] == [
        "other",
        "other",
        "other",
        "other",
        "Hant",
    ]


def test_order_groups_scripts_then_families():
    ordered = order_languages(PAPER_LANGUAGES)
    scripts = [language(code).script for code in ordered]
    assert [s for n, s in enumerate(scripts) if n == 0 or scripts[n - 1] != s] == [
        "Latn",
        *sorted(set(scripts) - {"Latn"}),
    ]
    latin = [language(code) for code in ordered if code.endswith("_Latn")]
    groups = [(entry.family, entry.branch) for entry in latin]
    assert groups == sorted(groups)


@settings(max_examples=50)
@given(st.lists(st.text("abLn_-", max_size=8) | st.sampled_from(PAPER_LANGUAGES)))
def test_order_is_a_permutation_that_does_not_depend_on_the_input_order(codes):
    ordered = order_languages(codes)
    assert sorted(ordered) == sorted(codes)
    assert order_languages(reversed(codes)) == ordered
