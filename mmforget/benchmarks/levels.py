"""The levels by name, and how a case of one is measured."""

import statistics
from collections.abc import Callable

import torch

from mmforget.benchmarks import ffn, run, scaling, steps, streams, validation
from mmforget.benchmarks.machine import Rates, measure_rates
from mmforget.benchmarks.measurement import Action, Case, Measurement, Settings, Table
from mmforget.benchmarks.memory import peak_memory
from mmforget.benchmarks.operations import count
from mmforget.benchmarks.timing import alternate

LEVELS: dict[str, Callable[[Settings], list[Case]]] = {
    'ffn': ffn.cases,
    'garments': steps.garments_cases,
    'r50': steps.r50_cases,
    'run': run.cases,
    'validation': validation.cases,
    'streams': streams.cases,
    'scaling': scaling.cases,
}


def find_case(level: str, title: str, settings: Settings) -> Case:
    """A case by its names, as a fresh process must find it."""
    return next(case for case in LEVELS[level](settings) if case.title == title)


class RateBook:
    """The machine's rates, measured once for each dtype that is needed."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.rates: dict[str, Rates] = {}

    def of(self, dtype: str) -> Rates:
        """Rates for a compute dtype."""
        if dtype not in self.rates:
            settings = self.settings
            self.rates[dtype] = measure_rates(
                settings.device, getattr(torch, dtype), settings.quick
            )
        return self.rates[dtype]


def measure_case(case: Case, settings: Settings, rates: RateBook) -> Table:
    """Times all variants side by side, then counts operations and measures memory.

    A variant that cannot be measured has its reason in the table; the others go on.

    Args:
        case: The case.
        settings: Of the benchmark.
        rates: Of the machine, for the floor.
    """
    rows = {name: Measurement(name) for name in case.variants}
    actions: dict[str, Action] = {}
    for name, build in case.variants.items():
        try:
            action = build()
            action.warm()
        # An operator may lack a dtype, memory may be short: the others are measured all the same.
        except Exception as error:
            rows[name].error = f'{type(error).__name__}: {str(error).strip().splitlines()[0]}'
        else:
            actions[name] = action
    seconds = alternate(actions, settings.repetitions, settings.device)
    for name, action in actions.items():
        row = rows[name]
        row.seconds = statistics.median(seconds[name])
        row.fastest, row.slowest = min(seconds[name]), max(seconds[name])
        row.trainable, row.cache_bytes = action.trainable, action.cache_bytes
        row.details = action.details()
        if case.counted:
            floor = count(action, rates.of(case.dtype))
            row.details |= {
                'GFLOP': round(floor.flops / 1e9, 2),
                'GB moved': round(floor.bytes / 1e9, 3),
                'floor s': round(floor.seconds, 5),
                'by floor': round(row.seconds / floor.seconds, 2),
            }
    reference = rows[case.reference].seconds
    for row in rows.values():
        if row.seconds is not None and reference is not None:
            row.ratio = row.seconds / reference
    actions.clear()
    if settings.memory:
        for name, row in rows.items():
            if row.error is None:
                try:
                    row.peak_memory = peak_memory(case, name, settings)
                except RuntimeError as error:
                    row.error = str(error)
    return Table(
        case.level, case.title, case.reference, settings.repetitions, case.note, [*rows.values()]
    )
