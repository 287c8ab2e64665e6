"""Tables are drawn from results files alone."""

import pytest

from mmforget.visualization.tables import demo_table, excerpt, mask_results, text_table


def row(task, groups, **scores):
    names = ('AP_f', 'AP_o', 'AP_r', 'AP_r_relative', 'H', 'H_ceiling')
    full = dict.fromkeys(names) | scores
    return {
        'task': task,
        'classes': ['bag', 'shoe'],
        'groups': groups,
        'full': full,
        'trainable_share': 0.0123,
        'seconds': 12.4,
    }


def test_columns_are_aligned_and_read_as_markdown():
    lines = text_table(['a', 'long'], [['1', '2'], ['wide cell', '3']]).splitlines()
    assert lines[0] == '| a         | long |'
    assert lines[1] == '| --------- | ---- |'
    assert len({len(line) for line in lines}) == 1


def test_an_excerpt_has_the_rows_and_columns_that_are_wanted():
    table = text_table(['method', '1: H', '2: H'], [['a', '1', '-'], ['b', '3', '4 ± 1']])
    wanted = text_table(['method', '2: H'], [['b', 'stale'], ['a', '']])
    text = text_table(['method', '2: H'], [['b', '4 ± 1'], ['a', '-']])
    assert excerpt(f'{table}\n\nText below.', wanted) == text
    assert excerpt(table, text) == text
    with pytest.raises(ValueError, match=r'wants 3: H, c; expected columns out of method, 1: H'):
        excerpt(table, text_table(['method', '3: H'], [['c', '1']]))
    with pytest.raises(ValueError, match='wants no row'):
        excerpt(table, '')


def test_demo_table_counts_dead_slots_and_relates_to_the_ceiling():
    first = row(
        1,
        {'encoder.layers.0': 0.0, 'decoder.layers.1': 0.5, 'decoder.layers.2': 0.1},
        AP_f=0.0,
        AP_r=0.5,
        AP_r_relative=0.99,
        H=0.45,
        H_ceiling=0.5,
    )
    second = row(2, {'encoder.layers.0': 0.0, 'decoder.layers.1': 0.0, 'decoder.layers.2': 0.1})
    document = {'base': {'full': {'AP': 0.6, 'AP50': 0.8}}, 'tasks': [first, second]}
    text = demo_table({'GS-LoRA': document})
    cells = [cell.strip() for cell in text.splitlines()[2].split('|')[1:-1]]
    assert cells == [
        'GS-LoRA',
        '1',
        'bag, shoe',
        '0.000',
        '-',
        '0.500',
        '0.990',
        '0.900',
        '2/3: decoder 1 2',
        '1.23 %',
        '12',
    ]
    assert 'GS-LoRA: 3 of 6 group slots dead.' in text
    assert 'AP 0.600, AP50 0.800' in text


def test_masks_have_a_table_of_their_own():
    boxes = row(1, {'backbone.blocks.0': 1.0}, AP_f=0.25)
    document = {'base': {'full': {'AP': 0.6, 'AP50': 0.8}}, 'tasks': [boxes]}
    assert mask_results(document) is None
    boxes['segm'] = {'full': boxes['full'] | {'AP_f': 0.125}}
    document['base']['segm'] = {'full': {'AP': 0.5, 'AP50': 0.7}}
    text = demo_table({'GS-LoRA': mask_results(document)})
    assert '| 0.125 |' in text and '| 0.250 |' not in text
    assert 'AP 0.500, AP50 0.700' in text


def test_a_classifier_has_accuracies():
    names = ('Acc_f', 'Acc_o', 'Acc_r', 'Acc_r_relative', 'H', 'H_ceiling')
    scores = dict.fromkeys(names) | {'Acc_f': 0.125, 'Acc_r': 0.75, 'H': 0.4, 'H_ceiling': 0.8}
    task = row(1, {'blocks.0': 1.0}) | {'full': scores}
    text = demo_table({'GS-LoRA': {'base': {'full': {'Acc': 0.9}}, 'tasks': [task]}})
    header, _, cells = (line.split('|') for line in text.splitlines()[:3])
    found = {name.strip(): cell.strip() for name, cell in zip(header, cells, strict=True)}
    assert (
        found['Acc_f'] == '0.125' and found['Acc_r'] == '0.750' and found['H relative'] == '0.500'
    )
    assert 'AP' not in text and 'Loaded classifier: Acc 0.900 on all classes' in text
