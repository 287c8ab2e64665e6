"""Timing, memory, counted operations, streams, and the report."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mmforget.benchmarks import streams, validation
from mmforget.benchmarks.levels import LEVELS, RateBook, measure_case
from mmforget.benchmarks.machine import Rates, measure_rates
from mmforget.benchmarks.measurement import Action, Case, Measurement, Settings, Table
from mmforget.benchmarks.operations import count
from mmforget.benchmarks.report import (
    BEGIN,
    END,
    Report,
    markdown,
    read_report,
    table_text,
    write_page,
)
from mmforget.benchmarks.targets import TARGETS
from mmforget.benchmarks.timing import alternate

MACHINE = {
    'device': 'cpu',
    'processor': 'of a kind',
    'cores': 2,
    'threads': 2,
    'memory_gb': 8,
    'python': '3.11',
    'torch': '2',
    'mmcv': '2',
    'mmdet': '3',
    'loralib': '0',
    'peft': '0',
    'faster-coco-eval': 'none',
}


class Recorded(Action):
    """Notes that it was called, and takes its time."""

    def __init__(self, name='', order=None, seconds=0.0):
        self.name, self.order, self.seconds = name, [] if order is None else order, seconds

    def __call__(self):
        self.order.append(self.name)
        time.sleep(self.seconds)


class Computed(Action):
    """Calls a function."""

    def __init__(self, function):
        self.function = function

    def __call__(self):
        self.result = self.function()


def settings(tmp_path, **changes):
    options = {'device': 'cpu', 'quick': True, 'repetitions': 3, 'memory': False}
    return Settings('configs', str(tmp_path), **{**options, **changes})


def test_variants_alternate_and_every_second_round_goes_backwards():
    order = []
    actions = {name: Recorded(name, order, 0.002) for name in 'abc'}
    seconds = alternate(actions, 3, 'cpu')
    assert ''.join(order) == 'abccbaabc'
    assert all(len(found) == 3 and min(found) >= 0.002 for found in seconds.values())


MEMORY = """
import torch
from mmforget.benchmarks.measurement import Action
from mmforget.benchmarks.memory import measure

class Work(Action):
    def warm(self):
        torch.ones(128 << 18).sum()  # Gone before the call: it does not count.
        self.kept = torch.ones(32 << 18)

    def __call__(self):
        torch.ones(64 << 18).sum()

print(measure(Work(), 'cpu') / 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/status').is_file(), reason='the kernel does not tell')
def test_memory_counts_what_warming_left_and_the_peak_of_one_call():
    environment = {k: v for k, v in os.environ.items() if not k.startswith('MALLOC_')}
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', MEMORY],
        env={**environment, 'PYTHONPATH': str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert 94 < float(result.stdout.splitlines()[-1]) < 112


@pytest.fixture
def rates():
    return Rates(flops=1e9, bandwidth={1 << 10: 4e9, 1 << 20: 1e9})


def test_operations_of_a_matrix_product(rates):
    left, right = torch.ones(30, 40), torch.ones(40, 50)
    floor = count(Computed(lambda: left @ right), rates)
    assert floor.flops == 2 * 30 * 40 * 50
    assert floor.bytes == 4 * (30 * 40 + 40 * 50 + 30 * 50)
    assert floor.seconds == pytest.approx(floor.flops / 1e9)


def test_operations_of_a_backward_pass(rates):
    weight = torch.ones(50, 40, requires_grad=True)
    x = torch.ones(30, 40, requires_grad=True)

    def work():
        torch.nn.functional.linear(x, weight).sum().backward()

    assert count(Computed(work), rates).flops == 3 * 2 * 30 * 40 * 50


def test_moving_counts_and_looking_does_not(rates):
    x = torch.ones(1 << 20)
    floor = count(Computed(lambda: x.view(1024, 1024).t()[3:]), rates)
    assert (floor.flops, floor.bytes, floor.seconds) == (0, 0, 0.0)
    floor = count(Computed(lambda: x + x.new_empty(1).expand(1 << 20)), rates)
    assert floor.bytes == 4 * (2 << 20) + 4
    assert floor.seconds == pytest.approx(floor.bytes / 1e9)


@pytest.mark.parametrize(
    ('work', 'megabytes'),
    [
        (lambda x, y: x.zero_(), 4),
        (lambda x, y: x.copy_(y), 8),
        (lambda x, y: x.add_(y), 12),
        (lambda x, y: torch._foreach_add_([x], [y]), 12),
        (lambda x, y: torch._foreach_mul_([x], 2.0), 8),
        (lambda x, y: y[:1024].expand(1024, 1024).contiguous(), 4.004),
    ],
)
def test_bytes_of_writes(rates, work, megabytes):
    x, y = torch.ones(1 << 20), torch.ones(1 << 20)
    floor = count(Computed(lambda: work(x, y)), rates)
    assert floor.bytes / 2**20 == pytest.approx(megabytes, rel=1e-3)


def test_placing_a_row_is_cheap(rates):
    x, index = torch.ones(1024, 1024), torch.tensor([3])
    floor = count(Computed(lambda: x.index_put_((index,), torch.ones(1, 1024))), rates)
    assert floor.bytes < 20_000


def test_every_target_names_a_case_and_variants_that_there_are(tmp_path, monkeypatch):
    monkeypatch.setenv('MMFORGET_DATA', str(Path(__file__).resolve().parents[2] / 'data'))
    options = settings(tmp_path, quick=False)
    configs = str(Path(__file__).resolve().parents[2] / 'configs')
    options = dataclasses.replace(options, configs=configs)
    cases = {level: LEVELS[level](options) for level in {target.level for target in TARGETS}}
    for target in TARGETS:
        (case,) = [case for case in cases[target.level] if case.title.endswith(target.title)]
        assert {target.variant, target.by or target.variant} <= set(case.variants)


def test_small_tensors_move_at_the_rate_of_the_caches(rates):
    assert rates.move_seconds(100) == pytest.approx(100 / 4e9)
    assert rates.move_seconds((1 << 20) - 1) == pytest.approx(((1 << 20) - 1) / 4e9)
    assert rates.move_seconds(1 << 20) == pytest.approx((1 << 20) / 1e9)


def test_rates_are_of_this_world():
    found = measure_rates('cpu', quick=True)
    assert 1e8 < found.flops < 1e16
    sizes = list(found.bandwidth)
    assert sizes == sorted(sizes) and all(1e7 < rate < 1e15 for rate in found.bandwidth.values())
    # A larger tensor is never said to move faster than a smaller one.
    assert [*found.bandwidth.values()] == sorted(found.bandwidth.values(), reverse=True)


def test_a_variant_that_fails_leaves_the_others(tmp_path):
    def broken():
        raise RuntimeError('not implemented for BFloat16\nmore')

    case = Case(
        level='ffn',
        title='case',
        reference='slow',
        variants={
            'slow': lambda: Recorded(seconds=0.01),
            'fast': lambda: Recorded(seconds=0.001),
            'broken': lambda: Computed(broken),
        },
    )
    table = measure_case(case, settings(tmp_path), RateBook(settings(tmp_path)))
    assert table.row('slow').ratio == 1 and table.row('fast').ratio < 0.8
    assert table.row('broken').seconds is None
    assert table.row('broken').error == 'RuntimeError: not implemented for BFloat16'
    assert 'broken could not be measured' in table_text(table)


@pytest.fixture
def report():
    rows = [
        Measurement(validation.PASSES, 2.0, 1.9, 2.1, 1.0, 10, 0, 3 << 20, {'AP_f': 0.5}),
        Measurement(validation.WARM, 0.5, 0.4, 0.6, 0.25, 10, 1 << 20),
    ]
    tables = [Table('validation', 'sets of Garments', validation.PASSES, 5, 'A note.', rows)]
    rates = {'float32': {'flops': 5e10, 'bandwidth': {1 << 20: 1e10}}}
    return Report(dict(MACHINE), False, rates, tables)


def test_report_survives_its_file(report, tmp_path):
    report.write(tmp_path / 'a' / 'b.json')
    again = read_report(tmp_path / 'a' / 'b.json')
    assert markdown(again) == markdown(report)
    assert again.tables == report.tables


def test_report_of_another_schema(tmp_path):
    (tmp_path / 'b.json').write_text(json.dumps({'schema': 0}))
    with pytest.raises(ValueError, match='has the schema 0, expected 1'):
        read_report(tmp_path / 'b.json')


def test_targets_say_what_was_reached(report):
    found = [target for target in report.targets() if target['measured'] is not None]
    assert [(t['measured'], t['at_most'], t['reached']) for t in found] == [(0.25, 0.1, False)]
    text = markdown(report)
    assert '| 0.1 ' in text and '| 0.25' in text and '| no ' in text
    assert 'No CUDA device was at hand' in text and '50 GFLOP/s, 10 GB/s (1 MB)' in text


def test_page_changes_between_its_markers_only(report, tmp_path):
    page = tmp_path / 'page.md'
    page.write_text(f'# Title\n\n{BEGIN}\nold\n{END}\n\nThe end.\n')
    write_page(page, markdown(report))
    write_page(page, 'new text')
    assert page.read_text() == f'# Title\n\n{BEGIN}\n\nnew text\n\n{END}\n\nThe end.\n'


def test_page_without_markers_stays(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('# Title\n')
    with pytest.raises(ValueError, match='lacks the lines'):
        write_page(page, 'text')
    assert page.read_text() == '# Title\n'


def test_streams_of_both_ways(tmp_path):
    path = streams.annotation_file(tmp_path, 300, 2_000)
    document = json.loads(path.read_text())
    assert (len(document['images']), len(document['annotations'])) == (300, 2_000)
    assert len(document['categories']) == 80
    reference, ours = streams.ReadPerStream(path), streams.IndexOnce(path)
    reference()
    ours()
    # The same candidates and the same share of them, if not the same draw.
    assert reference.images == ours.images > 14 * 2
    assert streams.annotation_file(tmp_path, 300, 2_000) == path
