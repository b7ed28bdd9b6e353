"""The tiny model before it has learnt anything: its shape, its vocabulary, and a checkpoint of random weights.

It has all that the released model has, in the released form, and is small: two hybrid blocks, each of a window layer
and three Gated DeltaNet layers, or, as a teacher, full attention in all eight. What is its own are the numbers that
small pictures and short texts ask for:

    window        64 tokens          a line of text and its question fit; a stream's facts soon do not
    rope_theta    10                 one column turns the slowest pair by 0.1 radians, not by 10⁻⁶
    vocabulary    640                bytes, the words of its questions, common words; the control tokens come last
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import AddedToken, models, processors, trainers

from ..checkpoint import load_model, save_model
from ..config import Config, VisionConfig
from ..fake_tokenizer import CONTROL
from ..fake_weights import write_fake
from ..messages import SYSTEM
from ..tokenizer_file import BYTES, byte_level
from .blind import OPEN
from .tiny_streams import NOT_SHOWN
from .tiny_world import KINDS, TinyWorld

VOCABULARY = 640  # control tokens included
LAYERS, WIDTH = 8, 128
LITTLE = 0.05
COMMON = """the of and to a in is it you that was for on are with as his they be at one have this from or had by not but
some what there we can out other were all your when up use word how said an each she which their time if will way about
many then them would write like so these her long make thing see him two has look more day could go come did my sound no
most number who over know water than call first people may down side been now find any new work part take get place"""


def teacher_config() -> Config:
    """Full attention in every layer; `student.student_config` makes the student's of it."""
    first = VOCABULARY - len(CONTROL)
    tokens = {name: first + number for number, name in enumerate(CONTROL)}
    vision = VisionConfig(
        depth=4,
        hidden_size=WIDTH,
        intermediate_size=352,
        num_heads=4,
        fullatt_block_indexes=(1, 3),
        out_hidden_size=WIDTH,
    )
    return Config(
        layer_types=("full_attention",) * LAYERS,
        hidden_size=WIDTH,
        intermediate_size=352,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        sliding_window=64,
        rope_theta=10.0,
        mrope_section=(4, 6, 6),
        num_linear_heads=4,
        linear_head_dim=32,
        vocab_size=VOCABULARY,
        vision=vision,
        image_token_id=tokens["<|image_pad|>"],
        video_token_id=tokens["<|video_pad|>"],
        vision_start_token_id=tokens["<|vision_start|>"],
        vision_end_token_id=tokens["<|vision_end|>"],
        bos_token_id=tokens["<|endoftext|>"],
        eos_token_id=tokens["<|im_end|>"],
    )


@torch.no_grad()
def write_start(folder: Path, *, seed: int = 0) -> None:
    """A teacher's checkpoint of random weights, float32, whose decoder layers add little to what they are given.

    Otherwise, at the start, what they add is ten times as long as a word, and no layer finds out which word it was.
    """
    write_fake(folder, teacher_config(), seed=seed, dtype=torch.float32, tokenizer=vocabulary())
    model = load_model(folder, device="cpu")
    for layer in model.model.language_model.layers:
        layer.self_attn.o_proj.weight.mul_(LITTLE)
        layer.mlp.down_proj.weight.mul_(LITTLE)
    save_model(model, folder)


def vocabulary() -> bytes:
    """A tokenizer.json whose words were learnt from questions, short answers and common words.

    What is to be read is not among them, so that capitals and digits stay single.
    """
    tokenizer = byte_level(models.BPE())
    words = VOCABULARY - len(CONTROL)
    trainer = trainers.BpeTrainer(vocab_size=words, initial_alphabet=list(BYTES), show_progress=False)
    tokenizer.train_from_iterator(texts(), trainer)
    if (found := tokenizer.get_vocab_size()) != words:
        raise RuntimeError(f"the texts gave {found} words; the vocabulary should have {words}")
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in CONTROL])
    return tokenizer.to_str().encode()


def texts(each: int = 150) -> Iterator[str]:
    """Questions and answers of each kind, and what stands around them in every conversation."""
    world = TinyWorld("train", seed=0)
    for kind in KINDS:
        for sample in (world.of(kind, index) for index in range(each)):
            yield sample.question
            yield from () if kind in OPEN else (sample.answer,)
    for _ in range(each):
        yield from (f"{SYSTEM['role']}\n{SYSTEM['content']}", "user\n", "assistant\n", "What is in box A?", NOT_SHOWN)
    yield from (f" {word}" for word in COMMON.split())
