"""Many methods on the same tasks: reference rows, order, spread, budgets."""

import copy

import pytest

from mmforget.visualization.method_table import method_table


@pytest.fixture
def document(results):
    """Two tasks' worth is enough of what a results file holds."""
    made = copy.deepcopy(results)
    made['run'] = {
        'tasks': [row['classes'] for row in made['tasks']],
        'batch_sizes': {'forget': 8, 'retain': 8},
        'seed': 42,
    }
    for row in made['tasks']:
        row |= {
            'steps': 80,
            'seconds': 10.0,
            'trainable_share': 0.0125,
            'images': {'forget': 60, 'retain': 400},
        }
    return made


def changed(document, seed=42, seconds=None, **scores):
    """Another run; ``scores`` are added to those of the last task."""
    other = copy.deepcopy(document)
    other['run']['seed'] = seed
    for name, value in scores.items():
        other['tasks'][-1]['full'][name] += value
    if seconds:
        for row in other['tasks']:
            row['seconds'] = seconds
    return other


def rows(text):
    lines = text.split('\n\n')[0].splitlines()
    cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines]
    return cells[0], {line[0]: dict(zip(cells[0], line, strict=True)) for line in cells[2:]}


def test_columns_and_reference_rows(document):
    header, table = rows(method_table({'der': [document]}))
    assert header[:4] == ['method', '1: AP_f', '1: AP_r', '1: H']
    assert header[4:8] == ['2: AP_f', '2: AP_o', '2: AP_r', '2: H']
    # The classes have AP 0.40, 0.43, ... in the order of their labels; bag and sneaker go first.
    loaded = table['loaded detector']
    assert loaded['1: AP_f'] == '0.625' and loaded['2: AP_f'] == '0.490'
    assert loaded['2: AP_o'] == '0.625' and loaded['2: H'] == '-'
    ceiling = table['ceiling of H']
    assert ceiling['2: AP_f'] == '0.000' and ceiling['2: AP_r'] == loaded['2: AP_r']
    assert ceiling['2: H'] == f'{document["tasks"][1]["full"]["H_ceiling"]:.3f}'
    assert table['der']['2: AP_f'] == '0.020' and table['der']['seconds'] == '30'
    assert table['der']['trainable'] == '1.25 %'


def test_references_come_first_then_the_methods_by_h(document):
    runs = {
        'worse': [changed(document, H=-0.1)],
        'retrain': [changed(document, H=-0.3)],
        'better': [document],
        'random-drop': [changed(document, H=0.1)],
    }
    _, table = rows(method_table(runs))
    assert list(table) == [
        *('loaded detector', 'ceiling of H', 'retrain', 'random-drop', 'better', 'worse')
    ]


def test_seeds_become_mean_and_deviation(document):
    runs = {'der': [document, changed(document, 43, AP_f=0.01), changed(document, 44, AP_f=0.02)]}
    text = method_table(runs)
    _, table = rows(text)
    assert table['der']['3: AP_f'] == '0.030 ± 0.010'
    assert table['der']['2: AP_f'] == '0.020 ± 0.000'
    assert 'Seeds: 42, 43, 44.' in text


def test_the_oracle_forgets_all_at_once(document):
    oracle = copy.deepcopy(document)
    last = oracle['tasks'][-1]
    last['classes'] = [name for row in document['tasks'] for name in row['classes']]
    retained = [n for n in last['per_class'] if n not in last['classes']]
    for name in retained:
        last['per_class'][name][1] = 0.5
    for name in last['classes']:
        last['per_class'][name][1] = 0.0
    oracle['tasks'] = [last]
    oracle['run']['tasks'] = [last['classes']]
    _, table = rows(method_table({'der': [document], 'oracle': [oracle]}))
    assert table['oracle']['3: AP_r'] == '0.500' and table['oracle']['3: AP_o'] == '0.000'
    assert table['oracle']['1: AP_r'] == '-' and table['oracle']['AP_r / oracle'] == '1.000'
    expected = document['tasks'][-1]['full']['AP_r'] / 0.5
    assert table['der']['AP_r / oracle'] == f'{expected:.3f}'


def test_budgets_are_stated_and_so_are_those_that_differ(document):
    other = copy.deepcopy(document)
    for row in other['tasks']:
        row['steps'] = 3000
    text = method_table({'a': [document], 'b': [document], 'oracle': [other]})
    assert (
        'Budget by task: 80, 80, 80 steps of 8 + 8 images, drawn from 60 + 400; 60 + 400; 60 + 400'
    ) in text
    assert 'oracle: 3000, 3000, 3000 steps' in text


def test_seeds_that_drew_different_numbers_of_images_are_told_as_a_range(document):
    other = changed(document, 43)
    other['tasks'][1]['images'] = {'forget': 58, 'retain': 400}
    text = method_table({'a': [document, other]})
    assert 'drawn from 60 + 400; 58 to 60 + 400; 60 + 400 (forget + retain)' in text


def test_unfinished_runs_are_left_out(document):
    half = copy.deepcopy(document)
    half['tasks'].pop()
    _, table = rows(method_table({'a': [document], 'b': [half]}))
    assert 'b' not in table
    with pytest.raises(ValueError, match='no finished run'):
        method_table({'b': [half]})


def test_runs_of_other_tasks_are_refused(document):
    other = copy.deepcopy(document)
    other['tasks'].reverse()
    with pytest.raises(ValueError, match='b has the tasks.*same tasks'):
        method_table({'a': [document], 'b': [other]})


def test_missing_classes_have_a_column(document):
    document['run']['missing'] = ['coat']
    for row in document['tasks']:
        row['full']['AP_m'] = 0.25
    header, table = rows(method_table({'der': [document]}))
    assert '1: AP_m' in header and table['der']['3: AP_m'] == '0.250'


def test_ablations_are_ordered_by_their_numbers(document):
    runs = {name: [document] for name in ('rank-16', 'rank-2', 'alpha-0.001', 'alpha-1e-05')}
    _, table = rows(method_table(runs, by_name=True))
    assert list(table)[2:] == ['alpha-1e-05', 'alpha-0.001', 'rank-2', 'rank-16']


def test_living_groups_are_counted(document):
    _, table = rows(method_table({'gs-lora': [document]}))
    # One of three in the first task, two in the others.
    assert table['gs-lora']['living groups'] == '1.67/3'
    for row in document['tasks']:
        row['groups'] = {}
    _, table = rows(method_table({'der': [document]}))
    assert table['der']['living groups'] == '-'


def test_a_method_that_lost_everything_does_not_hide_the_loaded_detector(document):
    lost = copy.deepcopy(document)
    for row in lost['tasks']:
        row['full'] |= {'AP_r': 0.0, 'AP_r_relative': 0.0}
    want = rows(method_table({'der': [document]}))[1]['loaded detector']
    assert rows(method_table({'lost': [lost], 'der': [document]}))[1]['loaded detector'] == want


def test_runs_that_are_not_seeds_of_one_method_are_refused(document):
    other = changed(document, 43)
    other['run']['max_steps'] = 40
    with pytest.raises(ValueError, match='Two runs named der have max_steps=None and 40'):
        method_table({'der': [document, other]})
    with pytest.raises(ValueError, match='der has the seeds 42, 42; expected one run of each'):
        method_table({'der': [document, document]})


def test_seeds_of_some_methods_are_told_apart(document):
    runs = {'a': [document], 'b': [document], 'c': [document, changed(document, 43)]}
    assert 'Seeds: 42; of c 42, 43.' in method_table(runs)


def test_what_is_run_before_the_first_step_is_told(document):
    other = copy.deepcopy(document)
    other['tasks'][0]['batches_before'] = {'trials': 24}
    text = method_table({'a': [document], 'b': [other]})
    assert text.endswith('Besides, b runs 24, 0, 0 batches for trials of groups.')
    text = method_table({'a': [document], 'b': [other], 'c': [other]})
    assert text.endswith('Besides, b, c run 24, 0, 0 batches for trials of groups.')


def test_an_oracle_that_is_a_classifier(document):
    """Accuracy is that of all images; the restricted protocol knows nothing of other sets."""
    classifier = copy.deepcopy(document)
    classifier['base']['images'] = {name: 10 for name in classifier['tasks'][0]['per_class']}
    for row in classifier['tasks']:
        row['full'] = {name.replace('AP', 'Acc'): value for name, value in row['full'].items()}
    oracle = copy.deepcopy(classifier)
    oracle['tasks'] = oracle['tasks'][-1:]
    oracle['tasks'][0]['classes'] = [n for row in classifier['tasks'] for n in row['classes']]
    oracle['run']['tasks'] = [oracle['tasks'][0]['classes']]
    _, table = rows(method_table({'der': [classifier], 'oracle': [oracle]}))
    per_class = oracle['tasks'][0]['per_class']
    kept = [now for n, (_, now) in per_class.items() if n not in oracle['tasks'][0]['classes']]
    assert table['oracle']['3: Acc_r'] == f'{sum(kept) / len(kept):.3f}'
    restricted = copy.deepcopy(document)
    for row in restricted['tasks']:
        row['restricted'] = row['full']
    oracle['base'].pop('images')
    _, table = rows(method_table({'der': [restricted], 'oracle': [oracle]}, 'restricted'))
    assert table['oracle']['3: AP_r'] == '-' == table['der']['AP_r / oracle']
