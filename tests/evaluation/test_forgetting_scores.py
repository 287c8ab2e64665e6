import pytest

from mmforget.evaluation.forgetting_scores import (
    drop,
    harmonic_mean,
    mean_ap,
    protocol_result,
    relative,
    set_means,
)
from mmforget.structures import ForgettingScenario


def test_mean_leaves_out_classes_without_ground_truth():
    ap = {'a': 0.2, 'b': None, 'c': 0.6, 'd': None}
    assert mean_ap(ap, ['a', 'b', 'c']) == pytest.approx(0.4)
    assert mean_ap(ap, ['b', 'd']) is None
    assert mean_ap(ap, []) is None
    with pytest.raises(KeyError):
        mean_ap(ap, ['e'])


def test_zero_is_a_value():
    assert mean_ap({'a': 0.0, 'b': 0.5}, ['a', 'b']) == 0.25
    assert drop(0.5, 0.0) == 0.5


@pytest.mark.parametrize(
    ('ap_r', 'ap_drop', 'h'),
    [
        (0.4, 0.4, 0.4),
        (0.6, 0.3, 0.4),
        (0.4, 0.0, 0.0),
        (0.0, 0.4, 0.0),
        (0.0, 0.0, 0.0),
        (0.4, -0.1, 0.0),
        (0.4, -0.4, 0.0),
        (None, 0.4, None),
        (0.4, None, None),
    ],
)
def test_harmonic_mean(ap_r, ap_drop, h):
    assert harmonic_mean(ap_r, ap_drop) == (None if h is None else pytest.approx(h, abs=1e-15))


def test_drop_and_relative():
    assert drop(0.5, 0.2) == pytest.approx(0.3)
    assert drop(0.2, 0.5) == pytest.approx(-0.3)
    assert drop(None, 0.2) is None
    assert drop(0.2, None) is None
    assert relative(0.3, 0.4) == pytest.approx(0.75)
    assert relative(0.0, 0.4) == 0.0
    assert relative(0.3, 0.0) is None
    assert relative(0.3, None) is None
    assert relative(None, 0.3) is None


def test_protocol_result_by_hand():
    scenario = ForgettingScenario.from_requests([['a'], ['b', 'c']], 'abcdef')
    base = {'a': 0.5, 'b': 0.3, 'c': 0.5, 'd': 0.6, 'e': 0.2, 'f': None}
    base50 = {name: None if ap is None else ap + 0.1 for name, ap in base.items()}
    now = {'a': 0.05, 'b': 0.1, 'c': 0.1, 'd': 0.5, 'e': 0.1, 'f': None}
    now50 = {name: None if ap is None else ap + 0.1 for name, ap in now.items()}
    task = scenario.tasks[1]
    result = protocol_result(set_means(task, now, now50), set_means(task, base, base50))
    # AP_r: d and e only, f has no ground truth.
    assert result.AP_f == pytest.approx(0.1)
    assert result.AP_r == pytest.approx(0.3)
    assert result.AP_o == pytest.approx(0.05)
    assert result.drop == pytest.approx(0.3)
    assert result.H == pytest.approx(0.3)
    assert result.H_ceiling == pytest.approx(0.4)
    assert result.AP_r_relative == pytest.approx(0.75)
    assert result.AP50_f == pytest.approx(0.2)
    assert result.AP50_r == pytest.approx(0.4)
    assert result.AP50_o == pytest.approx(0.15)
    assert result.AP50_drop == pytest.approx(0.3)
    assert result.AP50_H == pytest.approx(2 * 0.4 * 0.3 / 0.7)
    assert result.AP50_H_ceiling == pytest.approx(0.5)
    assert result.AP50_r_relative == pytest.approx(0.8)


def test_perfect_forgetting_reaches_the_ceiling():
    base = {'AP_f': 0.5, 'AP_r': 0.4, 'AP_o': None, 'AP50_f': 0.7, 'AP50_r': 0.6, 'AP50_o': None}
    result = protocol_result(base | {'AP_f': 0.0, 'AP50_f': 0.0}, base)
    assert result.H == result.H_ceiling == pytest.approx(2 * 0.5 * 0.4 / 0.9)
    assert result.AP50_H == result.AP50_H_ceiling
    assert result.AP_r_relative == 1.0


def test_without_base_only_the_means_are_known():
    now = {'AP_f': 0.1, 'AP_r': 0.4, 'AP_o': None, 'AP50_f': 0.2, 'AP50_r': 0.6, 'AP50_o': None}
    result = protocol_result(now, None)
    assert (result.AP_f, result.AP_r, result.AP50_f, result.AP50_r) == (0.1, 0.4, 0.2, 0.6)
    for name in ('drop', 'H', 'H_ceiling', 'AP_r_relative', 'AP50_drop', 'AP50_H'):
        assert getattr(result, name) is None
