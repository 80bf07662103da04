"""FLORES+ through a stand-in for the ``datasets`` package; nothing goes over the network."""

import os
import subprocess
import sys
import types

import pytest

from ilo_fast import load_corpus
from ilo_fast.corpora.languages import PAPER_LANGUAGES
from ilo_fast.errors import CorpusError, InputError

RENAMED = {"zho_Hans": "cmn_Hans", "tgl_Latn": "fil_Latn"}
CONFIGS = [RENAMED.get(code, code) for code in PAPER_LANGUAGES] + ["cat_Latn_vale1252", "kor_Hang"]


class Rows(dict):
    """Like a ``datasets.Dataset``: columns by name."""

    @property
    def column_names(self):
        return list(self)


class FakeDatasets(types.ModuleType):
    def __init__(self):
        super().__init__("datasets")
        self.calls = []
        self.changed = {}

    def get_dataset_config_names(self, repository, *, revision=None):
        self.calls.append((repository, revision))
        return CONFIGS

    def load_dataset(self, repository, config, *, split, revision=None):
        self.calls.append((repository, config, split, revision))
        if config in self.changed:
            return self.changed[config]
        # Out of order on purpose: rows belong together by id.
        return Rows(id=[2, 0, 1], text=[f"{config} {split} {n} " for n in (2, 0, 1)], iso=["x"] * 3)


@pytest.fixture
def fake(monkeypatch):
    module = FakeDatasets()
    monkeypatch.setitem(sys.modules, "datasets", module)
    return module


def test_reads_the_papers_languages_in_the_order_of_ids(fake):
    corpus = load_corpus("flores", revision="v4.2")
    assert corpus.languages == PAPER_LANGUAGES
    assert corpus.sentences[0] == ("ban_Latn dev 0", "ban_Latn dev 1", "ban_Latn dev 2")
    assert corpus.licence == "CC-BY-SA-4.0"
    assert corpus.name == "flores_plus-dev"
    assert corpus.source == "openlanguagedata/flores_plus@v4.2, split dev"
    assert {call[-1] for call in fake.calls} == {"v4.2"}
    assert {call[0] for call in fake.calls} == {"openlanguagedata/flores_plus"}


def test_old_codes_read_the_renamed_configuration_and_say_so(fake):
    corpus = load_corpus("flores", languages=["zho_Hans", "eng_Latn"])
    assert corpus.languages == ("zho_Hans", "eng_Latn")
    assert corpus.texts[0] == "cmn_Hans dev 0"
    assert "zho_Hans is cmn_Hans in FLORES+" in corpus.notes
    assert load_corpus("flores", languages=["cmn_Hans", "eng_Latn"]).texts == corpus.texts
    with pytest.raises(InputError, match="old and their new code: cmn_Hans"):
        load_corpus("flores", languages=["zho_Hans", "cmn_Hans"])


def test_only_what_was_asked_for_is_loaded(fake):
    corpus = load_corpus("flores", languages=["cat_Latn_vale1252", "kor_Hang"], limit=2)
    assert corpus.n_points == 4
    assert [call[1] for call in fake.calls if len(call) == 4] == ["cat_Latn_vale1252", "kor_Hang"]


def test_devtest(fake):
    corpus = load_corpus("flores", languages=["eng_Latn", "deu_Latn"], split="devtest")
    assert corpus.texts[0] == "eng_Latn devtest 0"
    with pytest.raises(InputError, match="expected dev or devtest for FLORES"):
        load_corpus("flores", split="txt")


def test_unknown_language(fake):
    with pytest.raises(InputError, match=r"no 'German', nearest: deu_Latn.*FLORES\+ has 3\d lang"):
        load_corpus("flores", languages=["German", "eng_Latn"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (Rows(id=[0, 1], text=["a", "b"]), r"other sentence ids than deu_Latn \(2 and 3"),
        (Rows(id=[0, 1, 3], text=["a", "b", "c"]), "other sentence ids"),
        (Rows(id=[0, 1, 1], text=["a", "b", "c"]), "ids occur more than once"),
        (Rows(id=[0, 1, 2], text=["a", None, " "]), "eng_Latn: empty sentences: id 1, id 2"),
        (Rows(sentence=["a"]), "expected columns id and text, got sentence"),
    ],
)
def test_rows_that_do_not_align(fake, rows, message):
    fake.changed["eng_Latn"] = rows
    with pytest.raises(CorpusError, match=message):
        load_corpus("flores", languages=["deu_Latn", "eng_Latn"])


class DatasetNotFoundError(FileNotFoundError):
    pass


class GatedRepoError(Exception):
    pass


def chained(outer, inner):
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DatasetNotFoundError("Dataset 'x' is a gated dataset on the Hub."), "is gated: accept"),
        (chained(RuntimeError("no"), GatedRepoError("restricted")), "is gated: accept"),
        (OSError("403 Client Error"), "is gated: accept"),
        (ConnectionError("Couldn't reach the Hub"), "cannot be reached: connect"),
        (chained(RuntimeError("x"), TimeoutError()), "cannot be reached: connect"),
        (RuntimeError("OfflineModeIsEnabled"), "cannot be reached: connect"),
        (DatasetNotFoundError("Revision 'v9' doesn't exist for dataset"), "no such revision"),
        (KeyError("odd\nthing"), "cannot be loaded: KeyError"),
    ],
)
@pytest.mark.parametrize("function", ["get_dataset_config_names", "load_dataset"])
def test_each_obstacle_has_its_message(fake, monkeypatch, function, error, message):
    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(fake, function, fail)
    with pytest.raises(CorpusError, match=message) as caught:
        load_corpus("flores")
    assert caught.value.__cause__ is error
    assert "\n" not in str(caught.value)
    if "revision" not in message:
        assert "a folder with one <language>.txt" in str(caught.value)
    if "gated" in message:
        assert "huggingface.co/datasets/openlanguagedata/flores_plus" in str(caught.value)


def test_an_interrupt_is_not_turned_into_a_message(fake, monkeypatch):
    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(fake, "load_dataset", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load_corpus("flores")


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CorpusError, match=r"pip install 'ilo-fast\[datasets\]', or give a folder"):
        load_corpus("flores")


def test_the_real_library_offline(tmp_path):
    pytest.importorskip(
        "datasets", reason="needs datasets (pip install -e '.[datasets]'): make test"
    )
    code = "from ilo_fast import load_corpus\nload_corpus('flores')"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    last = run.stderr.strip().splitlines()[-1]
    assert "FLORES+ cannot be reached" in last
    assert "a folder with one <language>.txt" in last
