"""Queries, views of the terminal, the command line, and files that are damaged."""

import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from rich.console import Console
from tiny import save_tiny_model

from ilo_fast.cli import main
from ilo_fast.errors import InputError
from ilo_fast.results import SCORES
from ilo_fast.scans import query, read_table, scan
from ilo_fast.scans.engines import LocalEngine
from ilo_fast.scans.jobs import plan_jobs
from ilo_fast.scans.plan import read_plan
from ilo_fast.scans.query import VIEWS
from ilo_fast.scans.report import report_data
from ilo_fast.scans.view import LiveView, PlainView, View
from ilo_fast.scans.work import Failure, Outcome

# ---------------------------------------------------------------- queries


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A small scan's folder, with one failure, and its plan."""
    folder = tmp_path_factory.mktemp("scan [x]'")  # a name that patterns and SQL stumble over
    save_tiny_model(folder / "tiny")
    plan = {
        "models": [str(folder / "tiny"), {"model": "./gone"}],
        "corpora": [{"corpus": "demo", "languages": ["eng_Latn", "deu_Latn", "fra_Latn"],
                     "limit": 3}],
        "defaults": {"k": 2, "threshold": 1, "intervals": 3, "permutations": 3, "truncate": True},
    }  # fmt: skip
    (folder / "plan.yaml").write_text(yaml.safe_dump({**plan, "results": "out"}))
    scan(folder / "plan.yaml", view=View())
    return folder


def test_sql_over_every_view(results):
    counts = {
        name: int(query(results / "out", f"select count(*) as n from {name}")["n"][0])
        for name in ("scores", "layers", "languages", "pairs", "neighbors", "failures", "runs")
    }
    assert counts == {
        "scores": 12, "layers": 4, "languages": 3, "pairs": 36, "neighbors": 0, "failures": 1,
        "runs": 1,
    }  # fmt: skip
    points = query(results / "out", "select sum(n_points) as n, sum(n_points) as n from scores")
    assert points.to_dict("list") == {"n": [36], "n_1": [36]}
    assert (points.dtypes == "int64").all()
    peak = query(results / "out", "select language, layer_peak, ilo_peak from languages")
    table = read_table(results / "out")
    for row in peak.itertuples():
        own = table[table["language"] == row.language]
        assert row.ilo_peak == own["ilo"].max()
    joined = query(
        results / "out",
        "select record->'$.model.dtype' as dtype from runs join scores using (key) limit 1",
    )
    assert joined["dtype"][0] == '"float32"'


def test_the_views_can_be_looked_up(results):
    """By SQL, and in the table of docs/scans.md."""
    assert query(results / "out", "show tables")["name"].tolist() == sorted(VIEWS)
    page = (Path(__file__).parents[2] / "docs" / "scans.md").read_text(encoding="utf-8")
    head = re.search(r"^\| view \| .*$", page, re.M)[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", page.partition(head)[2], re.M))
    assert tuple(rows) == VIEWS
    shared = set(re.findall(r"`(\w+)`", head))
    scores = {f"{score}{end}" for score in SCORES for end in ("_low", "_high")}
    said = {view: set(re.findall(r"`(\w+)`", row)) for view, row in rows.items()}
    said["scores"] |= scores
    said["layers"] |= said["scores"] - {"scores", "language", "reach_count"}
    said["layers"] -= {"scores", "language", "reach_count"}
    for view in VIEWS:
        columns = set(query(results / "out", f"describe {view}")["column_name"])
        assert columns == said[view] | (set() if view == "runs" else shared), view


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_csv('/etc/passwd')",
        "copy scores to 'x.csv'",
        "attach 'x.db'",
        "install httpfs",
        "set enable_external_access = true",
        "select * from results",
        "selec 1",
        "",
        "-- nothing",
        "select 1; select 2",
    ],
)
def test_sql_reads_the_views_and_nothing_else(results, sql):
    with pytest.raises(InputError, match="query: "):
        query(results / "out", sql)


def test_ctrl_c_interrupts_a_query(results):
    code = (
        "import signal, sys\n"
        "import ilo_fast.scans.query\n"
        "from ilo_fast.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in a shell's jobs
        "print('begins', flush=True)\n"
        "main(['query', *sys.argv[1:]])"
    )
    endless = "select max(range % 97) from range(1000000000000)"
    process = subprocess.Popen(
        [sys.executable, "-c", code, results / "out", endless],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            assert process.stdout.readline() == "begins\n"
            for seconds in (2, *[5] * 19):  # one that comes within a callback of Python's is lost
                with suppress(subprocess.TimeoutExpired):
                    process.wait(seconds)
                process.send_signal(signal.SIGINT)
        finally:
            process.kill()
        said = process.stderr.read()
    assert process.returncode == 130, said
    assert said.splitlines()[-1].startswith("ilo-fast: interrupted")


def test_pandas_reads_a_table_in_one_line(results):
    assert len(pd.read_parquet(results / "out" / "layers")) == 4
    with pytest.raises(InputError, match="table must be one of"):
        read_table(results / "out", "scroes")


# ---------------------------------------------------------------- the terminal


def job_of(plan):
    return plan_jobs(read_plan(plan))[0][0]


def test_a_single_one_is_no_plural(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    PlainView(stream := io.StringIO()).begin(1, 0, LocalEngine().describe())
    assert stream.getvalue() == "1 job to do, 0 skipped; CPU, 1 thread\n"


def test_plain_lines(plan):
    stream = io.StringIO()
    view, job = PlainView(stream), job_of(plan)
    view.begin(2, 1, "CPU, 2 threads")
    view.started(job, 75.0)
    view.finished(job, Outcome({}, None, 2.0, 100))
    view.finished(job, Outcome(failure=Failure("gated", "no access")))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "2 jobs to do, 1 skipped; CPU, 2 threads"
    assert lines[1].endswith("step9 on text, about 1 min 15 s")
    assert "(1 of 2): 2.0 s, 50 tokens/s, " in lines[2]
    assert lines[3].endswith("(2 of 2): gated: no access")


def test_the_live_view(plan):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=110, color_system=None)
    job = job_of({**plan, "models": [{"model": plan["models"][0], "name": "[bold]odd"}]})
    with LiveView(console) as view:
        view.begin(3, 1, "CPU, 2 threads")
        view.started(job, 9.0)
        listener = view.progress(job)
        listener.start(1000)
        listener.advance(250, 3)
        view.tick("CPU, 1 thread")
        console.print(view._draw())
        listener.finish()
        view.finished(job, Outcome({}, None, 2.0, 1000))
        view.finished(job, Outcome(failure=Failure("missing", "gone")))
        console.print(view._draw())
    shown = stream.getvalue()
    for words in ("[bold]odd@step9 on text", "forward", "of 9.0 s", "0 of 3 jobs", "1 skipped",
                  "CPU, 1 thread", "✓", "✗", "missing: gone", "2 of 3 jobs",
                  "1 failed"):  # fmt: skip
        assert words in shown, words


# ---------------------------------------------------------------- the command line


@pytest.fixture
def command(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return run


def test_scan_query_and_report_from_the_command_line(command, results, tmp_path):
    plan, out = results / "plan.yaml", results / "out"
    status, shown, _ = command("scan", plan, "--dry-run")
    assert status == 0
    assert "1 job to do, 1 skipped: there already (1 failed before)" in shown
    assert "1 job without an estimate" in shown
    assert f"gives no size: {results / 'gone'}\n" in shown
    status, shown, said = command("scan", plan)
    assert status == 3  # some failed
    assert "0 computed, 1 failed, 1 skipped as there already" in shown
    assert "FAILED  ./gone on demo (1 of 1): missing" in said
    why = re.search(r"What failed and why: ilo-fast (.*)\n", shown).group(1)
    assert "missing" in command(*shlex.split(why))[1]
    status, shown, said = command("scan", plan, "--skip-failed", "--quiet")
    assert (status, said) == (0, "")
    assert "0 computed, 0 failed, 2 skipped as there already or failed before" in shown
    status, shown, _ = command("query", out, "select max(layer) as top from layers")
    assert (status, shown.split()) == (0, ["top", "3"])
    status, shown, _ = command("query", out, "select 1 as a", "--format", "csv")
    assert shown == "a\n1\n"
    sql = "select range(1200) many, {'b': [1]} s, 0.5 x, null::double y, null z, true t, 'é' u"
    shown = command("query", out, sql, "--format", "csv")[1].splitlines()
    many = ",".join(map(str, range(1200)))
    assert shown[1:] == [f'"[{many}]","{{""b"":[1]}}",0.5,,,True,é']
    status, shown, _ = command("query", out, "select 1 as a", "--format", "json")
    assert shown == '[{"a":1}]\n'
    sql = "select 1.5e-12 p, 1/3 third, null x, 'nan'::double y, [1, 2] z, 'é/' t"
    shown = command("query", out, sql, "--format", "json")[1]
    third = "0.3333333333333333"
    assert shown == f'[{{"p":1.5e-12,"third":{third},"x":null,"y":null,"z":[1,2],"t":"é/"}}]\n'
    status, shown, said = command("query", out, "selec 1")
    assert (status, len(said.splitlines())) == (2, 1)
    status, shown, _ = command("report", out, "--out", tmp_path / "r.html")
    assert status == 0
    assert (tmp_path / "r.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_results_that_no_column_tells_apart_are_not_averaged(results, tmp_path):
    """Cut and uncut sentences: two slots, two keys, the same columns."""
    out = shutil.copytree(results / "out", tmp_path / "out")
    (path,) = (out / "scores").rglob("*.parquet")
    table = pq.read_table(path)
    other = pa.array(["f" * 32] * len(table))
    table = table.set_column(table.schema.get_field_index("key"), table.schema.field("key"), other)
    pq.write_table(table, path.with_name(f"{'f' * 32}.parquet"))
    assert len(read_table(out, "languages")) == 2 * len(read_table(results / "out", "languages"))


def damage(folder, table, change):
    """Rewrite the one file of a table."""
    (path,) = (folder / table).rglob("*.parquet")
    found = pq.read_table(path)
    pq.write_table(change(found), path)
    return path


def without_key(table):
    return table.replace_schema_metadata({**table.schema.metadata, b"ilo_fast_scan": b'["key"]'})


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        ("scores", lambda t: t.drop_columns(["ilo"]), "its columns are not those of scores"),
        ("layers", lambda t: t.rename_columns([*t.column_names[:-1], "kez"]), "its columns are no"),
        ("failures", lambda t: t.append_column("x", t["kind"]), "its columns are not those of fa"),
        ("scores", lambda t: without_key(t), "it does not say which result it is of"),
        ("pairs", lambda t: t.replace_schema_metadata({}), "its run record is none"),
        (
            "scores",
            lambda t: t.replace_schema_metadata(
                {**t.schema.metadata, b"ilo_fast": b'{"a": "\\ud800"}'}
            ),
            "'utf-8' codec can't encode",
        ),
    ],
)
def test_a_damaged_file_is_named(results, tmp_path, command, table, change, message):
    out = shutil.copytree(results / "out", tmp_path / "out")
    path = damage(out, table, change)
    given = [("query", out, "select max(ilo) from scores")]
    given += [("report", out, "--out", tmp_path / "r.html")] if table != "pairs" else []
    for arguments in given:
        status, shown, said = command(*arguments)
        assert (status, shown, len(said.splitlines())) == (2, "", 1)
        assert f"'{path}' cannot be read: {message}" in said.replace('"', "'")
    assert not (tmp_path / "r.html").exists()


def test_rows_in_another_order_are_the_same_in_a_report(results, tmp_path):
    out = shutil.copytree(results / "out", tmp_path / "out")
    expected = report_data(results / "out")["cells"]
    for table in ("scores", "layers"):
        damage(out, table, lambda t: t.take(np.random.default_rng(0).permutation(len(t))))
    for now, before in zip(report_data(out)["cells"], expected, strict=True):
        where = [now["languages"].index(language) for language in before["languages"]]
        heat = {name: [[row[at] for at in where] for row in rows]
                for name, rows in now["heat"].items()}  # fmt: skip
        assert (heat, now["curves"]) == (before["heat"], before["curves"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.slice(1), "lacks bridge of some layers and languages"),
        (lambda t: t.slice(0, 0), "its rows must have one model"),
        (lambda t: pa.concat_tables([t, t]), "more than once"),
    ],
)
def test_a_report_wants_whole_tables(results, tmp_path, change, message):
    out = shutil.copytree(results / "out", tmp_path / "out")
    path = damage(out, "scores", change)
    with pytest.raises(InputError, match=message) as raised:
        report_data(out)
    assert path.name in str(raised.value)


def test_a_bit_that_turned_is_named_by_a_query(results, tmp_path):
    out = shutil.copytree(results / "out", tmp_path / "out")
    (path,) = (out / "scores").rglob("*.parquet")
    column = pq.read_metadata(path).row_group(0).column(0)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset - 3] ^= 1  # the end of the page before
    path.write_bytes(data)
    for read in (lambda: query(out, "select * from scores"), lambda: report_data(out)):
        with pytest.raises(InputError, match=path.name):
            read()


def test_what_is_damaged_is_made_again(results, tmp_path):
    out = shutil.copytree(results / "out", tmp_path / "out")
    damage(out, "scores", without_key)
    assert scan(results / "plan.yaml", results=out, view=View()).computed == 1
    expected = read_table(results / "out")
    pd.testing.assert_frame_equal(read_table(out), expected)
    (path,) = (out / "layers").rglob("*.parquet")
    data = bytearray(path.read_bytes())
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    data[footer : footer + 4] = b"\xff" * 4
    path.write_bytes(data)
    assert scan(results / "plan.yaml", results=out, view=View()).computed == 1


def test_pipes_in_a_folder_of_results_do_not_hang(results, tmp_path):
    out = shutil.copytree(results / "out", tmp_path / "out")
    (path,) = (out / "layers").rglob("*.parquet")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match=f"{path.name}.* is a pipe or a device"):
        query(out, "from layers")
    assert scan(results / "plan.yaml", results=out, view=View()).computed == 1
    assert len(read_table(out, "layers")) == 4
    (out / "ilo-fast-scan.json").unlink()
    os.mkfifo(out / "ilo-fast-scan.json")
    with pytest.raises(InputError, match="is not what a scan wrote there"):
        query(out, "from layers")


def test_the_first_of_layers_as_high_is_the_peak(results, tmp_path):
    out = shutil.copytree(results / "out", tmp_path / "out")
    (path,) = (out / "scores").rglob("*.parquet")
    table = pq.read_table(path)
    level = pa.array([0.5] * len(table))
    table = table.set_column(table.schema.get_field_index("ilo"), table.schema.field("ilo"), level)
    pq.write_table(table.take(list(range(len(table)))[::-1]), path)
    assert read_table(out, "languages")["layer_peak"].tolist() == [0, 0, 0]


def test_every_mistake_of_a_plan_on_its_own_line(command, tmp_path):
    (tmp_path / "p.yaml").write_text("models: [1]\ncorpora: [demo]\nk: 5\n")
    status, shown, said = command("scan", tmp_path / "p.yaml", "--out", tmp_path / "out")
    assert (status, shown) == (2, "")
    assert said.splitlines() == [
        "ilo-fast: p.yaml, line 1, models[0]: expected text or keys, got 1",
        "ilo-fast: p.yaml, line 3, k: unknown key; known are version, models, corpora, defaults, "
        "results",
    ]
    assert not (tmp_path / "out").exists()


def test_without_the_extra(tmp_path):
    """A package that is not there is named, with what installs it."""
    code = (
        "import sys; sys.modules['pydantic'] = None\n"
        "from ilo_fast.cli import main; main(['scan', sys.argv[1]])"
    )
    (tmp_path / "p.yaml").write_text("models: [a]")
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "p.yaml"], capture_output=True, text=True,
        env={**os.environ}, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "pip install 'ilo-fast[scan]'" in done.stderr
    assert Path(tmp_path / "p.yaml").exists()
