"""The weights that come along: files of the released form, and a model that sees, reads and remembers as it is told to.

docs/tiny-scores.json says how many of a hundred held-out questions it answers. Here it is asked others. How many of
these are right must go with what is told: not so far from it that two samples of one model would be so once in a
thousand times (Fisher's exact test). Random weights answer nothing, which is farther off than that; see the last test.

    P(k) = C(n, k) · C(N, R + r − k) / C(n + N, R + r)      k of n right here, R of N there, r of n found
    odds = Σ of all P(k) ≤ P(r)                             should be at least 1/1000
"""

import json
import math
import warnings

import pytest
import torch

from minivl import config_file
from minivl.checkpoint import load
from minivl.fake_tokenizer import CONTROL
from minivl.safetensors_reading import listing
from minivl.source import TINY
from minivl.train.handing_over import digest
from minivl.train.splits import HELD_OUT
from minivl.train.student import student_config
from minivl.train.tiny_model import VOCABULARY, teacher_config
from minivl.train.tiny_scores import Score, recall_scores, world_scores
from minivl.train.tiny_streams import ANSWERS, NOT_SHOWN

from .pages import ROOT

TOLD = json.loads((ROOT / "docs" / "tiny-scores.json").read_text(encoding="utf-8"))
READING, FAR = "reading ≥ 22 px", 8  # windows
SEED, NUMBER = 1, 25  # what is told is of seed 0
LEAST = 1e-3


@pytest.fixture(scope="module")
def shipped():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load("tiny", device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def found(shipped):
    """Each score by its part and its name, as they stand in the file."""
    sample = {"seed": SEED, "number": NUMBER}
    parts = {
        "world": world_scores(*shipped, HELD_OUT, **sample, kinds=["reading"]),
        "recall": recall_scores(*shipped, HELD_OUT, **sample, windows=[FAR]),
        "blind": recall_scores(*shipped, HELD_OUT, **sample, windows=[FAR], blind=True),
    }
    return {(part, str(name)): score for part, several in parts.items() for name, score in several.items()}


def told(part: str, name: str) -> dict:
    return TOLD["scores"][HELD_OUT][part][name]


def odds(score: Score, other: dict) -> float:
    """How often two samples of one model differ at least as much as these, given how many are right in both."""
    n, rest, right = score.asked, other["asked"], score.right + other["right"]
    ways = {k: math.comb(n, k) * math.comb(rest, right - k) for k in range(max(0, right - rest), min(n, right) + 1)}
    return sum(count for count in ways.values() if count <= ways[score.right]) / sum(ways.values())


def by_chance(score: Score) -> float:
    """How often one who draws lots has as many right answers, or more."""
    share = 1 / len(ANSWERS)
    several = range(score.right, score.asked + 1)
    return sum(math.comb(score.asked, k) * share**k * (1 - share) ** (score.asked - k) for k in several)


def test_the_files_are_those_of_a_released_checkpoint_and_small():
    names = {"config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"}
    assert {path.name for path in TINY.iterdir()} == names
    size = sum(path.stat().st_size for path in TINY.iterdir())
    assert size <= 10e6
    assert round(size / 1e6, 2) == TOLD["megabytes"]
    said = json.loads((TINY / "config.json").read_text(encoding="utf-8"))
    assert said["model_type"] == "infinite_vl"
    assert said["architectures"] == ["InfiniteVLQwen2_5_VLForConditionalGeneration"]
    looks = json.loads((TINY / "preprocessor_config.json").read_text(encoding="utf-8"))
    assert looks["image_processor_type"] == "Qwen2VLImageProcessor"


def test_shape_and_vocabulary_are_those_of_train_tiny():
    config = config_file.read(TINY)
    assert config == student_config(teacher_config())
    words = json.loads((TINY / "tokenizer.json").read_text(encoding="utf-8"))
    added = {token["content"]: token for token in words["added_tokens"]}
    assert list(added) == list(CONTROL)
    assert len(words["model"]["vocab"].keys() | added.keys()) == VOCABULARY
    assert all(token["special"] for token in added.values())
    named = {"image_pad": config.image_token_id, "vision_start": config.vision_start_token_id}
    for name, number in (named | {"im_end": config.eos_token_id}).items():
        assert added[f"<|{name}|>"]["id"] == number


def test_weights_are_bf16_but_for_what_is_never_rounded():
    dtypes = {name: tensor.dtype for name, tensor in listing(TINY).tensors.items()}
    wide = {name for name, dtype in dtypes.items() if dtype == torch.float32}
    assert wide == {name for name in dtypes if name.endswith((".A_log", ".dt_bias"))}
    assert set(dtypes.values()) == {torch.bfloat16, torch.float32}


def test_it_loads_in_silence(capfd, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, _ = load("tiny", device="cpu")
    assert model.dtype == torch.bfloat16
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_the_scores_that_are_told_are_of_these_weights():
    assert TOLD["weights"] == digest(TINY)


@pytest.mark.parametrize(
    ("part", "name"), [("world", READING), ("recall", str(FAR)), ("recall", NOT_SHOWN), ("blind", str(FAR))]
)
def test_other_held_out_questions_are_answered_as_well_as_is_told(found, part, name):
    score, said = found[part, name], told(part, name)
    assert odds(score, said) >= LEAST, (
        f"{score.right} of {score.asked}, and told are {said['right']} of {said['asked']}"
    )


def test_without_its_memory_it_is_at_chance(found):
    assert by_chance(found["blind", str(FAR)]) >= LEAST


def test_who_answers_nothing_would_be_caught():
    """So would be whoever only ever says that nothing was shown, or knows what only the linear layers can hold."""
    for part, name in (("world", READING), ("recall", str(FAR)), ("recall", NOT_SHOWN)):
        assert odds(Score(0, NUMBER), told(part, name)) < LEAST / 10
        assert odds(Score(round(told(part, name)["share"] * NUMBER), NUMBER), told(part, name)) > 0.5
    assert by_chance(Score(round(told("recall", str(FAR))["share"] * NUMBER), NUMBER)) < LEAST / 10
    assert odds(Score(NUMBER, NUMBER), told("blind", str(FAR))) < LEAST / 10
