"""Name, family and script of language codes, for ordering and labelling plots.

Codes are those of FLORES-200: ISO 639-3, an underscore, the script in ISO 15924. Scores never
depend on this table.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["PAPER_LANGUAGES", "Language", "language", "order_languages", "script_of"]


@dataclass(frozen=True, order=True)
class Language:
    """What is known about a language code.

    Args:
        code: as given, for example ``eng_Latn``.
        name: in English; the code itself where it is not in the table.
        family: top-level family, or ``other``.
        branch: subgroup within the family, empty where the family is small.
        script: ISO 15924, or ``other``.
    """

    code: str
    name: str
    family: str
    branch: str
    script: str


# code: name, family, branch
_TABLE = {
    "arb_Arab": ("Arabic", "Afro-Asiatic", "Semitic"),
    "ban_Latn": ("Balinese", "Austronesian", "Malayo-Polynesian"),
    "ben_Beng": ("Bengali", "Indo-European", "Indo-Aryan"),
    "bjn_Latn": ("Banjar", "Austronesian", "Malayo-Polynesian"),
    "ces_Latn": ("Czech", "Indo-European", "Slavic"),
    "dan_Latn": ("Danish", "Indo-European", "Germanic"),
    "deu_Latn": ("German", "Indo-European", "Germanic"),
    "ell_Grek": ("Greek", "Indo-European", "Hellenic"),
    "eng_Latn": ("English", "Indo-European", "Germanic"),
    "fra_Latn": ("French", "Indo-European", "Romance"),
    "gle_Latn": ("Irish", "Indo-European", "Celtic"),
    "hin_Deva": ("Hindi", "Indo-European", "Indo-Aryan"),
    "ind_Latn": ("Indonesian", "Austronesian", "Malayo-Polynesian"),
    "jav_Latn": ("Javanese", "Austronesian", "Malayo-Polynesian"),
    "jpn_Jpan": ("Japanese", "Japonic", ""),
    "kor_Hang": ("Korean", "Koreanic", ""),
    "min_Latn": ("Minangkabau", "Austronesian", "Malayo-Polynesian"),
    "nld_Latn": ("Dutch", "Indo-European", "Germanic"),
    "pol_Latn": ("Polish", "Indo-European", "Slavic"),
    "rus_Cyrl": ("Russian", "Indo-European", "Slavic"),
    "sin_Sinh": ("Sinhala", "Indo-European", "Indo-Aryan"),
    "slv_Latn": ("Slovenian", "Indo-European", "Slavic"),
    "spa_Latn": ("Spanish", "Indo-European", "Romance"),
    "srp_Cyrl": ("Serbian", "Indo-European", "Slavic"),
    "sun_Latn": ("Sundanese", "Austronesian", "Malayo-Polynesian"),
    "swe_Latn": ("Swedish", "Indo-European", "Germanic"),
    "swh_Latn": ("Swahili", "Atlantic-Congo", "Bantu"),
    "tel_Telu": ("Telugu", "Dravidian", ""),
    "tgl_Latn": ("Tagalog", "Austronesian", "Malayo-Polynesian"),
    "tha_Thai": ("Thai", "Tai-Kadai", ""),
    "ukr_Cyrl": ("Ukrainian", "Indo-European", "Slavic"),
    "urd_Arab": ("Urdu", "Indo-European", "Indo-Aryan"),
    "yue_Hant": ("Cantonese", "Sino-Tibetan", "Sinitic"),
    "zho_Hans": ("Chinese (Simplified)", "Sino-Tibetan", "Sinitic"),
}
# In the table for the demo corpus only.
_DEMO_ONLY = {"arb_Arab", "ell_Grek", "kor_Hang"}

PAPER_LANGUAGES = tuple(sorted(set(_TABLE) - _DEMO_ONLY))
"""The 31 languages of the ILO paper, sorted by code."""

_SCRIPT = re.compile(r"[A-Z][a-z]{3}")


def script_of(code: str) -> str:
    """The script part of a code, or ``other``.

    >>> script_of("eng_Latn"), script_of("cat_Latn_vale1252"), script_of("sr-Cyrl"), script_of("en")
    ('Latn', 'Latn', 'Cyrl', 'other')
    """
    for part in re.split(r"[_-]", code)[1:]:
        if _SCRIPT.fullmatch(part):
            return part
    return "other"


def language(code: str) -> Language:
    """Name, family and script of a code; an unknown one keeps its code as its name.

    >>> german = language("deu_Latn")
    >>> german.name, german.family, german.branch, german.script
    ('German', 'Indo-European', 'Germanic', 'Latn')
    >>> language("xyz_Cyrl").family, language("xyz_Cyrl").script
    ('other', 'Cyrl')
    """
    name, family, branch = _TABLE.get(code, (code, "other", ""))
    return Language(code, name, family, branch, script_of(code))


def order_languages(codes: Iterable[str]) -> list[str]:
    """Codes grouped by script, then family and branch, then by name.

    Latin script comes first and what has no known script last.

    >>> order_languages(["rus_Cyrl", "xx", "ind_Latn", "fra_Latn", "spa_Latn", "deu_Latn"])
    ['ind_Latn', 'deu_Latn', 'fra_Latn', 'spa_Latn', 'rus_Cyrl', 'xx']
    """

    def key(code: str) -> tuple[int, str, bool, str, str, str, str]:
        known = language(code)
        rank = {"Latn": 0, "other": 2}.get(known.script, 1)
        unknown = known.family == "other"
        return rank, known.script, unknown, known.family, known.branch, known.name, code

    return sorted(codes, key=key)
