"""Train on one language, with and without frozen layers, and see what happens to alignment.

    python examples/single_language_finetuning/run.py --config small --text FOLDER

Every (arm, seed) that is done lies in --work and is not done again.
"""

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import training
from analysis import summarise
from evaluation import evaluate
from settings import ARMS, CONFIGS
from text import read_dataset, read_folder, refuse_evaluation_text, sequences, take

from ilo_fast import load_corpus
from ilo_fast.environment import describe
from ilo_fast.errors import InputError
from ilo_fast.files import staged

HERE = Path(__file__).parent
POOL = 4  # the seeds draw from this many times the sequences a run takes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", choices=CONFIGS, default="small")
    parser.add_argument("--text", type=Path, help="folder of .txt files to train on")
    parser.add_argument("--text-name", help="what the record calls that text")
    parser.add_argument("--dataset", nargs=2, metavar=("NAME", "CONFIGURATION"))
    parser.add_argument("--language", help="of the text, as the corpus calls it")
    parser.add_argument("--model")
    parser.add_argument("--corpus", help="a folder, a table, 'flores' or 'demo'")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--layers", type=int, help="how many the freezing arms freeze")
    parser.add_argument("--steps", type=at_least_1)
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--device")
    parser.add_argument("--no-summary", action="store_true", help="train and evaluate only")
    parser.add_argument("--work", type=Path, default=Path("single-language-work"))
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    chosen = ("language", "model", "corpus", "layers", "steps", "device")
    changes = {name: getattr(given, name) for name in chosen if getattr(given, name) is not None}
    if given.seeds:
        changes["seeds"] = tuple(given.seeds)
    if given.dataset:
        changes["dataset"] = tuple(given.dataset)
    config = replace(CONFIGS[given.config], **changes)
    text_name = given.text_name or (given.text.name if given.text else " ".join(config.dataset))

    corpus = load_corpus(config.corpus)
    if config.language not in corpus.languages:
        raise SystemExit(f"--language: {config.language} is not one of {list(corpus.languages)}")
    record = {
        "config": asdict(config),
        "arms": list(given.arms),
        "text": text_name,
        "corpus": corpus.record,
        **describe(config.device),
    }
    model, tokenizer = training.load(config)
    documents = read_folder(given.text) if given.text else read_dataset(*config.dataset)
    count = POOL * config.steps * config.batch
    documents = take(refuse_evaluation_text(documents, corpus), tokenizer, count * config.length)
    if config.trim_vocabulary:
        used = {id_ for text in (*documents, *corpus.texts) for id_ in tokenizer(text)["input_ids"]}
        tokenizer = training.trim(model, tokenizer, used)
        record["vocabulary"] = len(model.get_input_embeddings().weight)
    blocks = sequences(documents, tokenizer, length=config.length, count=count)
    start = {name: weight.clone() for name, weight in model.state_dict().items()}
    given.work.mkdir(parents=True, exist_ok=True)
    run(model, tokenizer, corpus, config, given.work / "before", None)
    for seed in config.seeds:
        for arm in given.arms:
            target = given.work / f"{arm}-{seed}"
            if not (target / "run.json").exists():
                model.load_state_dict(start)
                run(model, tokenizer, corpus, config, target, (arm, seed, blocks))
    if not given.no_summary:
        summarise(given.work, given.out, corpus, config, given.arms, record)


def at_least_1(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def run(model, tokenizer, corpus, config, target: Path, job) -> None:
    """Train as ``job`` says (None: not at all), evaluate, and write ``target``."""
    if (target / "run.json").exists():
        return
    said = {}
    if job is not None:
        arm, seed, blocks = job
        with training.frozen(model, arm, config) as report:
            said = {
                "arm": arm,
                "seed": seed,
                "frozen": report.frozen,
                "trainable": report.trainable,
                **training.train(model, blocks, config, seed),
            }
    began = time.perf_counter()
    with torch.random.fork_rng():
        scored, bits = evaluate(model, tokenizer, corpus, config.model)
    said["evaluation_seconds"] = time.perf_counter() - began
    said["neighbours"] = scored.backend
    said["columns"] = {name: np.asarray(values).tolist() for name, values in scored.columns.items()}
    with staged(target) as temporary:
        np.savez_compressed(temporary / "arrays.npz", indices=scored.indices, bits=bits)
        (temporary / "run.json").write_text(json.dumps(said), encoding="utf-8")
    print(
        f"{target.name}: trained {said.get('seconds', 0):.0f} s, "
        f"evaluated {said['evaluation_seconds']:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(str(error)) from None
