"""Small models and examples for the tests of training, in float64 unless they say otherwise."""

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import torch

from minivl.config import Config, VisionConfig
from minivl.fake_weights import tiny_config
from minivl.model import InfiniteVL
from minivl.ops.rotary import positions
from minivl.train import freezing, trainer
from minivl.train.examples import IGNORED, Example
from minivl.train.objectives import AnswerTuning
from minivl.train.settings import Settings
from minivl.train.student import student_config, student_from
from minivl.train.trainer import train

LAYERS = 3
EYES = VisionConfig(
    depth=2, hidden_size=16, intermediate_size=20, num_heads=2, fullatt_block_indexes=(1,), out_hidden_size=32
)


def small_config(layer_type: str | tuple[str, ...] = "full_attention", **changes) -> Config:
    types = LAYERS * (layer_type,) if isinstance(layer_type, str) else layer_type
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_key_value_heads": 1}
    return tiny_config(layer_types=types, sliding_window=8, vision=EYES, **(sizes | changes))


def small_model(config: Config, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> InfiniteVL:
    """Weights large enough that attention, gates and residuals all vary."""
    torch.manual_seed(seed)
    model = InfiniteVL(config).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            else:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def plainly(passes: torch.nn.Module, loop: ModuleType = trainer, *, device: str = "cpu") -> Callable:
    """How `gradients` runs a pass."""
    return partial(loop.one_pass, passes, device=torch.device(device), casts=False)


def teacher(*, dtype: torch.dtype = torch.float64, seed: int = 0, **changes) -> InfiniteVL:
    return small_model(small_config(**changes), seed=seed, dtype=dtype).requires_grad_(False)


def student(taught: InfiniteVL | None = None, *, period: int = LAYERS, varied: bool = True, **own) -> InfiniteVL:
    """A student of this teacher. `varied` moves it away from where training starts, so that no gradient is zero."""
    taught = taught or teacher()
    model = student_from(taught, student_config(taught.config, period=period, **own))
    if varied:
        torch.manual_seed(3)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".self_attn." in name:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def example(config: Config, number: int, *, T: int | None = None, picture: bool = False) -> Example:
    """Random words, the last few of them an answer; with a picture of 2×2 cells before them."""
    draw = torch.Generator().manual_seed(number)
    T = T or 7 + number % 5
    ids = torch.randint(0, config.bos_token_id, (T,), generator=draw)
    pixels = grids = None
    if picture:
        pads = torch.full((4,), config.image_token_id)
        ids = torch.cat([torch.tensor([config.vision_start_token_id]), pads, ids])
        grids = torch.tensor([[1, 4, 4]])
        pixels = torch.randn(16, config.vision.patch_width, generator=draw)
    labels = ids.clone()
    labels[: len(ids) - 2 - number % 3] = IGNORED
    places, _ = positions(ids[None], grids, config=config)
    return Example(ids, places[:, 0], labels, pixels, grids)


class Endless:
    """Examples by number, without end."""

    def __init__(self, config: Config, *, pictures: bool = True, description: str = "endless"):
        self.config, self.pictures, self.description = config, pictures, description

    def __getitem__(self, number: int) -> Example:
        return example(self.config, number, picture=self.pictures and number % 2 == 1)


def example_with(made: Example, **changes) -> Example:
    return type(made)(**({name: getattr(made, name) for name in vars(made)} | changes))


class Killed(BaseException):
    pass


def settings(**changes) -> Settings:
    return Settings(**({"steps": 4, "batch": 2, "save_every": 2, "learning_rate": 1e-2} | changes))


def tuned(out: Path, *, stop: int | None = None, learner=None, learns=freezing.LEARNS["tuning"], data=None, **changes):
    """A short run of stage 2; with `stop`, broken off after that step."""
    learner = learner or student()
    freezing.freeze(learner, learns)

    def stepped(step: int, loss: float) -> None:
        if step == stop:
            raise Killed

    with contextlib.suppress(Killed):
        objective, data = AnswerTuning(learner), data or Endless(learner.config)
        train(objective, data, out, settings(**changes), quiet=True, stepped=stepped)
    return learner
