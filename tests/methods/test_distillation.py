"""Objectives with a teacher, against formulas written out with torch's own distributions."""

import pytest
import torch
from made_up_streams import TASK, context, stream, total
from torch.distributions import Bernoulli, Categorical, kl_divergence

from mmforget.methods import FORGET, RETAIN
from mmforget.methods.der import DER
from mmforget.methods.der_plus_plus import DERPlusPlus
from mmforget.methods.fdr import FDR
from mmforget.methods.gs_lora import GSLoRA
from mmforget.methods.gs_lora_distilled import GSLoRADistilled
from mmforget.methods.lirf import LIRF
from mmforget.methods.lwf import LwF
from mmforget.methods.scrub import SCRUB
from mmforget.methods.scrub_s import SCRUBS

FORGOTTEN = {'loss_cls': 2.0, 'loss_bbox': 0.5}
RETAINED = {'loss_cls': 0.7, 'loss_bbox': 0.2}


def pair(sigmoid=True):
    return (
        stream(seed=1, sigmoid=sigmoid, **FORGOTTEN),
        stream(seed=2, sigmoid=sigmoid, **RETAINED),
    )


def kl(output, temperature, columns=slice(None), dim=-1):
    """T² KL(teacher, student), mean over images."""
    teacher, student = (
        x.logits[..., columns] / temperature for x in (output.teacher, output)
    )  # fmt: skip
    if output.sigmoid and dim == -1:
        whole = kl_divergence(Bernoulli(logits=teacher), Bernoulli(logits=student)).sum()
    else:
        teacher, student = teacher.movedim(dim, -1), student.movedim(dim, -1)
        whole = kl_divergence(Categorical(logits=teacher), Categorical(logits=student)).sum()
    return temperature**2 * whole.item() / len(student)


def test_der_and_der_plus_plus():
    forget, retain = pair()
    squares = (retain.logits - retain.teacher.logits).square().sum().item() / 2
    found = total(DER(strength=0.3).losses(forget, retain)).item()
    assert found == pytest.approx(2.5 + 0.3 * squares, rel=1e-5)
    found = total(DERPlusPlus(strength=0.3, retain_weight=0.1).losses(forget, retain)).item()
    assert found == pytest.approx(2.5 + 0.3 * squares + 0.09, rel=1e-5)


@pytest.mark.parametrize('method', [DER(), FDR()], ids=['der', 'fdr'])
def test_losses_of_no_weight_are_not_computed(method):
    assert method.stream_options(FORGET).losses and not method.stream_options(RETAIN).losses
    forget, retain = pair()
    retain.losses = {'loss_cls': torch.tensor(torch.inf)}
    assert torch.isfinite(total(method.losses(forget, retain)))


@pytest.mark.parametrize(('axis', 'dim'), [('classes', -1), ('queries', 1)])
def test_fdr(axis, dim):
    forget, retain = pair()
    norm = (retain.logits - retain.teacher.logits).norm(dim=dim).mean().item()
    found = total(FDR(strength=2, axis=axis).losses(forget, retain)).item()
    assert found == pytest.approx(2.5 + 2 * norm, rel=1e-5)


def test_fdr_has_a_gradient_where_student_and_teacher_agree():
    forget, retain = pair()
    retain.teacher.logits = retain.logits.detach().clone()
    terms = FDR().losses(forget, retain)
    assert terms['loss_distillation'].item() == 0
    total(terms).backward()
    assert torch.equal(retain.logits.grad, torch.zeros_like(retain.logits))


@pytest.mark.parametrize('sigmoid', [True, False])
def test_lwf_keeps_the_answers_for_retained_classes_on_forget_images(sigmoid):
    method = LwF(strength=0.5, retain_weight=2, temperature=3)
    method.before_task(TASK, context())
    forget, retain = pair(sigmoid)
    found = total(method.losses(forget, retain)).item()
    assert found == pytest.approx(2.5 + 0.5 * kl(forget, 3, [1, 3]) + 1.8, rel=1e-4)


def test_gs_lora_distilled_holds_all_but_what_this_task_forgets():
    arguments = dict(forget_weight=0.5, bound=10)
    plain, method = GSLoRA(**arguments), GSLoRADistilled(strength=0.3, **arguments)
    for own in (plain, method):
        own.before_task(TASK, context())
    forget, retain = pair()
    squares = sum(
        (output.logits - output.teacher.logits)[..., 1:].square().sum().item() / 2
        for output in (forget, retain)
    )
    expected = total(plain.losses(forget, retain)).item() + 0.3 * squares
    assert total(method.losses(forget, retain)).item() == pytest.approx(expected, rel=1e-5)
    assert method.teacher == 'previous' and method.teacher_streams == {FORGET, RETAIN}


def test_scrub_alternates():
    """Five times away and back, then five times back, in each cycle."""
    method = SCRUB(cycles=2, rounds=5)
    phases = []
    for step in range(60):
        method.before_step(step, 60)
        phases.append(method.forgets)
    one = [flag for _ in range(5) for flag in (True, True, False, False)] + [False] * 10
    assert phases == one * 2


@pytest.mark.parametrize(('axis', 'dim'), [('classes', -1), ('queries', 1)])
def test_scrub(axis, dim):
    method = SCRUB(axis=axis, temperature=2, retain_weight=0.9, distillation_weight=0.1)
    forget, retain = pair()
    method.forgets = True
    assert total(method.losses(forget, retain)).item() == pytest.approx(
        -kl(forget, 2, dim=dim), rel=1e-4
    )
    method.forgets = False
    assert total(method.losses(forget, retain)).item() == pytest.approx(
        0.9 * 0.9 + 0.1 * kl(retain, 2, dim=dim), rel=1e-4
    )


@pytest.mark.parametrize('forgets', [False, True])
def test_scrub_s_pulls_towards_the_running_mean(forgets):
    weights = {name: torch.zeros(3, requires_grad=True) for name in 'ab'}
    method = SCRUBS(smoothing=0.5, decay=0.75)
    method.before_task(TASK, context(weights))
    with torch.no_grad():
        for weight in weights.values():
            weight += 4
    method.after_step()
    method.forgets = forgets
    forget, retain = pair()
    term = method.losses(forget, retain)['loss_smoothing']
    assert term.item() == pytest.approx(2 * 0.5 * 3 * 3**0.5, rel=1e-5), 'the mean is at 1'


def test_who_teaches_on_what():
    assert DER().teacher_streams == FDR().teacher_streams == {RETAIN}
    assert LwF().teacher_streams == {FORGET}
    assert SCRUB().teacher_streams == {FORGET, RETAIN}
    assert DER().teacher == 'loaded' and DER(teacher='previous').teacher == 'previous'


@pytest.mark.parametrize(
    ('build', 'named'),
    [
        (lambda: FDR(axis='boxes'), "FDR got axis='boxes'"),
        (lambda: SCRUB(rounds=0), 'rounds=0'),
        (lambda: SCRUBS(decay=1), 'decay=1'),
        (lambda: LwF(temperature=0), 'temperature=0'),
        (lambda: DER(strength=-1), 'DER got strength=-1'),
        (lambda: LIRF(share=2), 'LIRF got share=2'),
    ],
)
def test_bad_arguments(build, named):
    with pytest.raises(ValueError, match=named):
        build()


def test_lirf():
    method = LIRF(share=0.2, attention_weight=3, distillation_weight=5, retain_weight=2)
    method.before_task(TASK, context())
    forget, retain = pair(sigmoid=False)
    forget.halfway = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]] * 2)
    forget.teacher.halfway = torch.tensor([[[0.0, 0.0], [2.0, 0.0]]] * 2)
    found = total(method.losses(forget, retain)).item()
    # Unit vectors that stand upright on each other: a square of 1 at each of the two tokens.
    want = 0.8 * 2.5 - 3 * 1 + 5 * 0.2 * kl(forget, 10, [1, 3]) + 2 * 0.9
    assert found == pytest.approx(want, rel=1e-4)
    assert method.stream_options(FORGET).halfway and not method.stream_options(RETAIN).halfway
