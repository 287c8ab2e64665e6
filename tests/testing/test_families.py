"""Every family of docs/detectors.md: injected, one step, folded; the page says what is found."""

import importlib.util
from pathlib import Path

import pytest

from mmforget.testing.families import FAMILIES, check_family

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def page_rows():
    text = (ROOT / 'docs' / 'detectors.md').read_text()
    table = text.partition('<!-- families: begin -->')[2].partition('<!-- families: end -->')[0]
    rows = [line for line in table.splitlines() if line.startswith('| ')]
    return {line.split('|')[1].strip(): line for line in rows}


@pytest.fixture(scope='module')
def row_text():
    path = ROOT / 'tools' / 'analysis_tools' / 'detector_table.py'
    spec = importlib.util.spec_from_file_location('detector_table', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.row_text


@pytest.mark.slow
@pytest.mark.parametrize('family', FAMILIES)
def test_family(family, page_rows, row_text):
    row = check_family(family)
    assert row.same_output and row.finite_step and row.same_merged
    assert 0 < row.share < 0.1
    assert row_text(row) == page_rows[family]


def test_the_page_names_every_family(page_rows):
    assert set(FAMILIES) <= set(page_rows)
