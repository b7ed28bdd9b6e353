"""`python -m minivl bench WHAT`: measurements, each made beside its peer in one run and given as times and ratios.

A new measurement is a module with `add_arguments(parser)` and `run(args)`, and a line in the table below.
"""

import argparse
import importlib

MEASUREMENTS = {
    "ops": ("minivl.bench.ops", "each rung's naive and fast form, and transformers', on the CPU"),
    "card": ("minivl.bench.card", "a checkpoint on a GPU with the memory of a smaller card"),
    "model": ("minivl.bench.model", "the whole model on a GPU: frames, tokens and prompts, beside a transformer"),
    "drift": ("minivl.bench.drift", "a float32 state against the float64 recurrence over a million tokens"),
    "int8": ("minivl.bench.int8", "a model with int8 matrices beside the same unquantised: scores, memory, speed"),
    "kernels": ("minivl.bench.kernels", "the Triton kernels on a GPU, beside Flash Linear Attention"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    measurements = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    for name, (module_name, summary) in MEASUREMENTS.items():
        module = importlib.import_module(module_name)
        measurement = measurements.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
        module.add_arguments(measurement)
        measurement.set_defaults(measure=module.run)


def run(args: argparse.Namespace) -> int | None:
    return args.measure(args)
