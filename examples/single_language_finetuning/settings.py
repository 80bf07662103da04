"""The sizes the experiment comes in."""

from dataclasses import dataclass

ARMS = ("full", "freeze_first", "freeze_last")


@dataclass(frozen=True)
class Config:
    """Everything that decides a result, but for the text."""

    model: str  # "demo" (the package of the demo extra), a hub id, a folder or a .gguf file
    corpus: str  # what is scored, by ilo_fast.load_corpus; never trained on
    dataset: tuple[str, str]  # name and configuration for `datasets`, where no --text is given
    language: str  # of the training text, as the corpus calls it
    layers: int  # how many the two freezing arms freeze
    steps: int
    batch: int  # sequences a step
    length: int  # tokens a sequence
    learning_rate: float
    warmup: int  # steps
    seeds: tuple[int, ...]
    trim_vocabulary: bool  # keep only the tokens that the two texts use; see training.trim
    device: str
    autocast: bool  # bfloat16 products with float32 weights


CONFIGS = {
    # a quarter of an hour on two CPU cores; enough steps to move a model, too few to teach it much
    "small": Config(
        model="demo",
        corpus="demo",
        dataset=("wikimedia/wikipedia", "20231101.de"),
        language="deu_Latn",
        layers=8,
        steps=100,
        batch=2,
        length=128,
        learning_rate=1e-4,
        warmup=10,
        seeds=(0, 1, 2),
        trim_vocabulary=True,
        device="cpu",
        autocast=False,
    ),
    # an hour or so on one GPU
    "full": Config(
        model="google/gemma-3-270m",
        corpus="flores",
        dataset=("wikimedia/wikipedia", "20231101.de"),
        language="deu_Latn",
        layers=8,
        steps=2000,
        batch=16,
        length=1024,
        learning_rate=5e-5,
        warmup=100,
        seeds=(0, 1, 2, 3, 4),
        trim_vocabulary=False,
        device="cuda",
        autocast=True,
    ),
}
