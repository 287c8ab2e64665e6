"""Prototypes: distances against torch's own divergence, empty batches, the two sources."""

import pytest
import torch
from made_up_streams import TASK, stream, total
from torch.distributions import Categorical, kl_divergence

from mmforget.methods import Measurement
from mmforget.methods.gs_lora import GSLoRA
from mmforget.methods.gs_lora_plus_plus import GSLoRAPlusPlus
from mmforget.methods.prototypes import matched_embeddings, mean_embeddings

FORGOTTEN = {'loss_cls': 2.0, 'loss_bbox': 0.5}
RETAINED = {'loss_cls': 0.7, 'loss_bbox': 0.2}
ROWS = torch.randn(4, 5, generator=torch.Generator().manual_seed(9))


class Head(Measurement):
    def class_rows(self):
        return ROWS


def divergence(output):
    """Objects 0 and 1 of an image are of labels 0 and 3, matched with queries 0 and 1."""
    values = [
        kl_divergence(Categorical(logits=ROWS[label]), Categorical(logits=image[query]))
        for image in output.embeddings.detach()
        for query, label in ((0, 0), (1, 3))
    ]
    return torch.stack(values).mean().item()


def measured(**arguments):
    method = GSLoRAPlusPlus(**arguments)
    method.measure(TASK, Head())
    return method


def test_push_and_pull():
    forget, retain = stream(seed=1, **FORGOTTEN), stream(seed=2, **RETAINED)
    method = measured(push=0.5, pull=0.25, prototype_bound=4, bound=15)
    base = total(GSLoRA(bound=15).losses(forget, retain)).item()
    terms = method.losses(forget, retain)
    away, near = divergence(forget), divergence(retain)
    want = base + 0.5 * max(0, 4 - away) + 0.25 * near
    assert away < 4 and total(terms).item() == pytest.approx(want, rel=1e-5)
    assert terms['forget_prototype'].item() == pytest.approx(away, rel=1e-5)
    total(terms).backward()
    assert forget.embeddings.grad[:, :2].any() and not forget.embeddings.grad[:, 2].any()


def test_pushing_ends_at_the_bound():
    forget, retain = stream(seed=1, **FORGOTTEN), stream(seed=2, **RETAINED)
    terms = measured(push=0.5, prototype_bound=divergence(forget) - 0.01).losses(forget, retain)
    assert terms['loss_push'].item() == 0


def test_a_batch_without_objects():
    forget, retain = stream(seed=1, **FORGOTTEN), stream(seed=2, **RETAINED)
    for output in (forget, retain):
        output.matches = [torch.zeros(0, 2, dtype=torch.long)] * 2
    method = measured(push=0.5, pull=0.25)
    terms = method.losses(forget, retain)
    assert 'loss_push' not in terms, 'nothing is there to be pushed away'
    assert terms['loss_pull'].item() == 0
    total(terms).backward()


def test_mean_embeddings_of_each_class():
    outputs = [stream(seed=1), stream(seed=2)]
    means = mean_embeddings(outputs)
    assert set(means) == {0, 3}
    want = torch.cat([output.embeddings[:, 1] for output in outputs]).mean(0)
    torch.testing.assert_close(means[3], want)
    embeddings, labels = matched_embeddings(outputs[0])
    assert embeddings.shape == (4, 5) and labels.tolist() == [0, 3, 0, 3]


def test_classes_without_a_prototype_do_not_count():
    method = measured(push=0.5)
    forget = stream(seed=1, **FORGOTTEN)
    method.prototypes = {3: ROWS[3]}
    found = method.losses(forget, stream(seed=2, **RETAINED))['forget_prototype']
    values = [
        kl_divergence(Categorical(logits=ROWS[3]), Categorical(logits=image[1]))
        for image in forget.embeddings.detach()
    ]
    assert found.item() == pytest.approx(torch.stack(values).mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    'arguments', [{'push': -1}, {'prototypes': 'logits'}, {'prototype_bound': 0}, {'batches': 0}]
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match='GSLoRAPlusPlus got'):
        GSLoRAPlusPlus(**arguments)
