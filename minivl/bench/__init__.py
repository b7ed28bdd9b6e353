"""`python -m minivl bench WHAT`: measurements, each made beside its peer in one run and given as times and ratios.

A new measurement is a module with `add_arguments(parser)` and `run(args)`, and a line in the table below.
"""

import argparse
import importlib

MEASUREMENTS = {"ops": ("minivl.bench.ops", "recurrent and chunked forms, beside transformers', on the CPU")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    measurements = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    for name, (module_name, summary) in MEASUREMENTS.items():
        module = importlib.import_module(module_name)
        measurement = measurements.add_parser(name, help=summary, description=module.__doc__)
        measurement.formatter_class = argparse.RawDescriptionHelpFormatter
        module.add_arguments(measurement)
        measurement.set_defaults(measure=module.run)


def run(args: argparse.Namespace) -> int | None:
    return args.measure(args)
