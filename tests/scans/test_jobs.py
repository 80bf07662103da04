"""From a plan to jobs: globs, revisions, what a result depends on."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from changes import change

from ilo_fast.activations.space import human
from ilo_fast.cli.scan_display import show_dry_run
from ilo_fast.corpora import load_corpus
from ilo_fast.scans import hub
from ilo_fast.scans.identity import model_digest, tokenizer_digest
from ilo_fast.scans.jobs import plan_jobs
from ilo_fast.scans.plan import PlanError, read_plan
from ilo_fast.scans.shapes import shape_of_job


def jobs_of(plan, **changed):
    return plan_jobs(read_plan({**plan, **changed}))[0]


def names(jobs):
    return [(job.model.rsplit("/", 1)[-1], job.revision) for job in jobs]


def test_globs_and_folders_of_revisions(plan, models):
    assert names(jobs_of(plan)) == [("step9", ""), ("step10", "")]
    jobs = jobs_of(plan, models=[{"model": str(models / "step*"), "name": "run"}])
    assert names(jobs) == [("run", "step9"), ("run", "step10")]
    jobs = jobs_of(plan, models=[{"model": str(models), "name": "run", "revisions": ["step1*"]}])
    assert names(jobs) == [("run", "step10")]
    assert jobs[0].target == str(models / "step10")
    odd = shutil.copytree(models / "step9", models / "odd [x]*")  # a name, where it is one
    assert names(jobs_of(plan, models=[str(odd)])) == [("odd [x]*", "")]
    (job,) = jobs_of(plan, models=[str(models / "none")])
    assert job.source == "missing"  # becomes a row of the failures, not a mistake


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"model": "./nothing*"}, r"models\[0\].model: no folder with a config.json .* matches"),
        ({"model": "{models}", "revisions": ["x*"]}, r"revisions: no folder .* matches 'x\*'"),
        ({"model": "{models}", "revisions": ["../text"]}, "names of folders in it"),
        ({"model": "{models}/step*", "revisions": ["a"]}, "a glob has no revisions"),
        ({"model": "my model"}, "no file or folder 'my model', and it is no hub id: Repo id must"),
    ],
)
def test_mistakes_in_models(plan, models, entry, said):
    entry["model"] = entry["model"].replace("{models}", str(models))
    with pytest.raises(PlanError, match=said):
        jobs_of(plan, models=[entry])


def test_the_same_job_twice_and_bad_corpora(plan, models):
    model = str(models / "step9")
    said = r"models\[1\]: .* is the same job as that of models\[0\]: give it another name$"
    with pytest.raises(PlanError, match=said):
        jobs_of(plan, models=[model, model])
    assert len(jobs_of(plan, models=[model, {"model": model, "k": 2}])) == 2
    with pytest.raises(PlanError, match=r"corpora\[1\]: a second corpus 'demo'") as caught:
        jobs_of(plan, corpora=["demo", {"corpus": "demo", "limit": 3}, "/none"], models=["./no*"])
    assert len(str(caught.value).splitlines()) == 3  # all mistakes at once


def test_a_corpus_is_read_from_its_split_and_at_its_revision(plan, corpus_folder):
    for file in list(corpus_folder.iterdir()):
        text = file.read_text(encoding="utf-8")
        file.rename(file.with_suffix(".dev"))
        file.with_suffix(".devtest").write_text(text.upper(), encoding="utf-8")
    entry = {"corpus": str(corpus_folder), "name": "text"}
    for split in ("dev", "devtest"):
        job, _ = jobs_of(plan, corpora=[{**entry, "split": split}])
        assert job.corpus_sha256 == load_corpus(corpus_folder, split=split).sha256
    with pytest.raises(PlanError, match=r"corpora\[0\]: revision: only 'flores' .* got 'v1'"):
        jobs_of(plan, corpora=[{**entry, "split": "dev", "revision": "v1"}])


def test_a_model_whose_name_is_no_utf8_is_a_mistake(plan, models):
    shutil.copytree(models / "step9", models / "step\udcff")
    with pytest.raises(PlanError, match=r"models\[0\]\.model: model: expected a name in UTF-8"):
        jobs_of(plan)


def test_keys_change_with_what_matters_and_nothing_else(plan, models):
    def keys(**changed):
        defaults = {**plan["defaults"], **changed.pop("options", {})}
        return [job.cells[0].key for job in jobs_of(plan, defaults=defaults, **changed)]

    before = keys()
    assert keys() == before
    assert keys(options={"device": "cpu", "batch_tokens": 7}) == before
    shorter = [{**plan["corpora"][0], "limit": 4}]
    changes = ({"intervals": 5}, {"layers": "0"}, {"fused": "off"})
    others = [*(keys(options=one) for one in changes), keys(corpora=shorter)]
    assert all(set(other).isdisjoint(before) for other in others)
    change(models / "step9", 2.0)
    after = keys()
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_keys_change_with_code_tokenizer_and_package(plan, models, monkeypatch):
    def keys(**entry):
        jobs = jobs_of(plan, models=[{"model": str(models / "step9"), **entry}])
        return [cell.key for job in jobs for cell in job.cells] + [job.key for job in jobs]

    seen = [*keys(), *keys(trust_remote_code=True)]
    for name, value in (("__version__", "0"), ("SCHEMA_VERSION", 0)):
        with monkeypatch.context() as patch:
            patch.setattr(f"ilo_fast.scans.jobs.{name}", value)
            seen += keys()
    file = models / "step9" / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8") + " ", encoding="utf-8")
    seen += keys()
    assert len(set(seen)) == len(seen) == 10


def test_the_key_of_a_local_model_has_its_weights_and_its_tokenizer(plan):
    parts = jobs_of(plan)[0].cells[0].parts
    assert parts.keys() > {"model", "tokenizer", "trust_remote_code"}


def test_folders_of_revisions_come_in_the_order_of_their_numbers(plan, models):
    for number in (100, 8):
        shutil.copytree(models / "step9", models / f"step{number}")
    (models / "step7").mkdir()  # not loadable: no match of a glob
    entry = {"model": str(models), "name": "run", "revisions": ["step10", "step*", "step7"]}
    jobs = jobs_of(plan, models=[entry])
    assert [job.revision for job in jobs] == ["step10", "step8", "step9", "step100", "step7"]


def test_the_languages_of_a_corpus_are_those_asked_for(plan, corpus_folder):
    corpora = [{**plan["corpora"][0], "languages": ["swh_Latn", "eng_Latn", "ell_Grek"]}]
    jobs, texts = plan_jobs(read_plan({**plan, "corpora": corpora}))
    assert texts["text"].languages == ("swh_Latn", "eng_Latn", "ell_Grek")
    assert texts["text"].sha256 == jobs[0].corpus_sha256
    assert jobs[0].cells[0].key != jobs_of(plan)[0].cells[0].key


def test_cells_of_other_options_stand_side_by_side_or_replace(plan):
    def slots(**options):
        jobs = jobs_of(plan, defaults={**plan["defaults"], **options})
        return [cell.slot for job in jobs for cell in job.cells]

    assert slots(intervals=9, permutations=0, layers="0", truncate=True) == slots()
    for other in ({"k": 4}, {"dtype": "float64"}, {"pool": "last"}, {"metrics": ["euclidean"]}):
        assert set(slots(**other)).isdisjoint(slots())
    assert set(slots(metrics=["cosine", "euclidean"])) > set(slots())


def test_auto_and_the_dtype_it_stands_for_are_one_job(plan, models, tmp_path):
    """In the tables their results would look alike."""

    def made(dtype, model="step9"):
        defaults = {**plan["defaults"], "dtype": dtype}
        (job,) = jobs_of(plan, models=[str(models / model)], defaults=defaults)
        return job.options["dtype"], job.cells, job.key

    assert made("auto") == made("float32") != made("bfloat16")
    entries = [{"model": str(models / "step9"), "dtype": dtype} for dtype in ("auto", "float32")]
    with pytest.raises(PlanError, match=r"is the same job as that of models\[0\]"):
        jobs_of(plan, models=entries)
    config = models / "step10" / "config.json"
    stored = json.loads(config.read_text())
    for dtype, found in (("bfloat16", "bfloat16"), ("float8_e4m3fn", "auto"), (None, "auto")):
        config.write_text(json.dumps({**stored, "dtype": dtype}))
        assert made("auto", "step10")[0] == found
    for file in ("config.json", "m.gguf"):  # a GGUF file's is float32
        path = models / file
        path.write_text("[")
        jobs = jobs_of(plan, models=[str(path if file == "m.gguf" else models)])
        assert [job.options["dtype"] for job in jobs] == ["float32" if "gguf" in file else "auto"]


def test_auto_of_a_hub_model_is_what_its_configuration_says(plan, fake_hub, monkeypatch):
    monkeypatch.setattr(hub, "config_of", lambda *_: {"torch_dtype": "float16"})
    assert [job.options["dtype"] for job in jobs_of(plan, models=["org/name"])] == ["float16"]
    monkeypatch.setattr(hub, "config_of", lambda *_: json.loads("{"))
    assert [job.options["dtype"] for job in jobs_of(plan, models=["org/name"])] == ["auto"]


def test_digests(models, tmp_path, monkeypatch):
    folder = models / "step9"
    tokenizer, whole = tokenizer_digest(folder), model_digest(folder)
    (folder / "README.md").write_text("nothing")
    (folder / ".cache").mkdir()
    (folder / ".index.json").write_text("{}")
    (folder / "tokenizer.d").mkdir()
    assert (tokenizer_digest(folder), model_digest(folder)) == (tokenizer, whole)
    with monkeypatch.context() as patch:  # a file system lists its files in any order
        listed = Path.iterdir
        patch.setattr(Path, "iterdir", lambda self: sorted(listed(self), reverse=True))
        assert (tokenizer_digest(folder), model_digest(folder)) == (tokenizer, whole)
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace("ana", "anb", 1))
    assert tokenizer_digest(folder) != tokenizer
    large = tmp_path / "large.gguf"
    with large.open("wb") as file:  # sparse: 64 MiB and a little that is sampled
        file.truncate((64 << 20) + (1 << 24))
    before = model_digest(large), tokenizer_digest(large)
    with large.open("r+b") as file:
        file.seek(-10, 2)
        file.write(b"x")
    assert model_digest(large) != before[0]
    assert tokenizer_digest(large) == before[1]
    with large.open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"x")
    assert tokenizer_digest(large) != before[1]


def test_settings_that_change_no_hidden_state_leave_the_digest(models):
    folder = models / "step9"
    before = model_digest(folder)

    def digest(file, **changed):
        path = folder / file
        text = path.read_text()
        path.write_text(json.dumps({**json.loads(text), **changed}))
        found = model_digest(folder)
        path.write_text(text)
        return found

    for name in ("use_cache", "output_hidden_states", "output_attentions", "return_dict"):
        assert digest("config.json", **{name: None}) == before, name
    assert digest("config.json", text_config={"use_cache": 1}) == digest(
        "config.json", text_config={"transformers_version": "5.0"}
    )
    assert digest("generation_config.json", max_length=7) == before
    assert digest("config.json", rms_norm_eps=1e-3) != before
    (folder / "config.json").write_text("{")
    assert model_digest(folder) != before


def test_a_file_that_may_not_be_read_stops_no_plan(plan, models, monkeypatch):
    """Its model fails when it is loaded, the others are scored."""
    readable = jobs_of(plan)[0].cells[0].key
    real_open = Path.open

    def refused(path, *mode, **options):
        if path.name == "model.safetensors":
            raise PermissionError(13, "Permission denied", str(path))
        return real_open(path, *mode, **options)

    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "model.safetensors")
    monkeypatch.setattr(Path, "open", refused)
    assert jobs_of(plan)[0].cells[0].key != readable


def test_a_checkpoint_that_goes_while_the_plan_is_read_stops_no_plan(plan, models, monkeypatch):
    def gone(path):
        shutil.rmtree(path)
        return model_digest(path)

    monkeypatch.setattr("ilo_fast.scans.jobs.model_digest", gone)
    assert [job.cells[0].parts["model"] for job in jobs_of(plan)] == ["missing", "missing"]


class FakeHub:
    """The answers of a hub with one repository."""

    def __init__(self):
        self.asked = []

    def list_repo_refs(self, repository):
        self.asked.append(repository)
        return SimpleNamespace(
            branches=[SimpleNamespace(name="main")],
            tags=[SimpleNamespace(name=f"step{n}") for n in (10, 9, 100)],
        )

    def model_info(self, repository, revision, files_metadata, timeout):
        if repository == "org/gated":
            raise PermissionError("403: gated repo")
        files = {
            "model.safetensors": 100,
            "config.json": 2,
            "consolidated.safetensors": 70,  # of another library, beside transformers' own
            "extra.bin": 50,
            "x/big.safetensors": 9,
        }
        siblings = [SimpleNamespace(rfilename=name, size=size) for name, size in files.items()]
        return SimpleNamespace(sha=f"commit-of-{revision}", siblings=siblings)


@pytest.fixture
def fake_hub(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    found = FakeHub()
    monkeypatch.setattr(hub, "_api", lambda: found)
    monkeypatch.setattr(hub, "config_of", lambda repository, revision: None)
    return found


def test_revisions_of_the_hub(plan, fake_hub):
    entry = {"model": "org/name", "revisions": ["main", "step*", "step9"]}
    jobs = jobs_of(plan, models=[entry])
    assert names(jobs) == [("name", r) for r in ("main", "step9", "step10", "step100")]
    assert jobs[1].commit == "commit-of-step9"
    assert [job.download for job in jobs] == [102] * 4
    assert jobs[0].cells[0].key != jobs[1].cells[0].key
    assert [job.cells[0].parts["model"] for job in jobs] == [job.commit for job in jobs]
    with pytest.raises(PlanError, match="no branch or tag of org/name matches 'v"):
        jobs_of(plan, models=[{"model": "org/name", "revisions": ["v*"]}])


def test_each_revision_is_a_download(plan, fake_hub, monkeypatch, tmp_path, capsys):
    plan["models"] = [{"model": "org/name", "revisions": ["main", "step*"]}]
    plan["corpora"] *= 2  # the second of a revision finds the weights there
    plan["corpora"][1] = {**plan["corpora"][1], "name": "again", "limit": 4}
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan), encoding="utf-8")
    show_dry_run(file, tmp_path / "out", skip_failed=False)
    shown = " ".join(capsys.readouterr().out.split())
    assert "8 jobs to do" in shown
    assert f"{human(4 * 102)} to download" in shown


def test_a_hub_that_does_not_answer(plan, fake_hub, monkeypatch):
    (job,) = jobs_of(plan, models=["org/gated"])  # fails later, as a row
    assert (job.commit, job.download) == (None, None)
    monkeypatch.setattr(hub, "config_of", lambda *_: pytest.fail("it is asked again"))
    assert shape_of_job(job) is None
    monkeypatch.setattr(FakeHub, "list_repo_refs", lambda *_: 1 / 0)
    with pytest.raises(PlanError, match="the hub cannot say which revisions"):
        jobs_of(plan, models=[{"model": "org/name", "revisions": ["step*"]}])


def test_offline(plan, fake_hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(PlanError, match="known to the hub only, and HF_HUB_OFFLINE is set"):
        jobs_of(plan, models=[{"model": "org/name", "revisions": ["step*"]}])
    (job,) = jobs_of(plan, models=[{"model": "org/name", "revisions": ["main"]}])
    assert job.commit is None
    assert fake_hub.asked == []


def test_globs_relative_to_the_plan(plan, models, tmp_path):
    folder = tmp_path / "plans [1]"
    folder.mkdir()
    shutil.copytree(models, folder / "runs")
    (folder / "plan.yaml").write_text(
        "models: [./runs/step*, '../models/step1*']\ncorpora: [{corpus: demo, limit: 2}]\n"
    )
    jobs = plan_jobs(read_plan(folder / "plan.yaml"))[0]
    assert [job.model for job in jobs[:2]] == ["runs/step9", "runs/step10"]
    assert jobs[2].target == str(models / "step10")
