"""GS-LoRA++'s objective (arXiv 2501.09705): prototypes push what is forgotten and pull the rest."""

from itertools import chain
from typing import Any

import torch
from torch import Tensor

from mmforget.methods.base import FORGET, RETAIN, Measurement
from mmforget.methods.gs_lora import GSLoRA
from mmforget.methods.prototypes import (
    matched_embeddings,
    mean_embeddings,
    of_labels,
    prototype_distance,
)
from mmforget.methods.terms import check_weights
from mmforget.registry import METHODS
from mmforget.structures import ForgettingTask, StreamOutput

PROTOTYPES = ('head', 'mean')


@METHODS.register_module()
class GSLoRAPlusPlus(GSLoRA):
    """L = L_GS-LoRA + w_f·ReLU(18 − d_forget) + w_r·d_retain (spec B.5, B.6).

    d is the mean of KL(softmax(prototype) ‖ softmax(embedding)) over matched objects, 0 where a
    batch has none; the embedding is what the last decoder layer gives the head for the query that
    an object is matched with. β does not weigh these terms.

    Args:
        push: w_f; 0.005 in the authors' detection run.
        pull: w_r; 0 there, although the paper describes it.
        prototype_bound: Where pushing ends; 18.
        prototypes: ``'head'``: the rows of the class head, as in detection; ``'mean'``: the mean
            embedding of each class over ``batches`` batches before the task, as in classification.
        batches: For ``'mean'``.
        **arguments: See :class:`~mmforget.methods.gs_lora.GSLoRA`.

    Raises:
        ValueError: An argument is out of range.
    """

    needs = frozenset({'losses', 'embeddings', 'matches', 'targets'})

    def __init__(
        self,
        push: float = 0.005,
        pull: float = 0.0,
        prototype_bound: float = 18.0,
        prototypes: str = 'head',
        batches: int = 20,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        check_weights('GSLoRAPlusPlus', push=push, pull=pull)
        if prototypes not in PROTOTYPES or prototype_bound <= 0 or batches < 1:
            raise ValueError(
                f'GSLoRAPlusPlus got prototypes={prototypes!r}, prototype_bound='
                f"{prototype_bound!r}, batches={batches!r}; expected 'head' or 'mean', a positive "
                'bound, and a positive whole number.'
            )
        self.push = push
        self.pull = pull
        self.prototype_bound = prototype_bound
        self.kind = prototypes
        self.measured_batches = batches if prototypes == 'mean' else 0
        self.prototypes: dict[int, Tensor] = {}

    def measure(self, task: ForgettingTask, measurement: Measurement) -> None:
        if self.kind == 'head':
            if self.prototypes:  # Those of the loaded detector hold for all tasks.
                return
            rows = measurement.class_rows().detach().clone()
            self.prototypes = dict(enumerate(rows))
            return
        outputs = chain(measurement.outputs(FORGET), measurement.outputs(RETAIN))
        with torch.no_grad():
            self.prototypes = mean_embeddings(output for (output,) in outputs)

    def losses(self, forget: StreamOutput, retain: StreamOutput) -> dict[str, Tensor]:
        terms = super().losses(forget, retain)
        away, near = self._distance(forget), self._distance(retain)
        terms['forget_prototype'] = away.detach()
        if len(matched_embeddings(forget)[1]):
            terms['loss_push'] = self.push * torch.relu(self.prototype_bound - away)
        terms['loss_pull'] = self.pull * near
        return terms

    def _distance(self, output: StreamOutput) -> Tensor:
        embeddings, labels = matched_embeddings(output)
        prototypes, places = of_labels(self.prototypes, labels)
        return prototype_distance(embeddings[places], prototypes.to(embeddings.device))

    def state_dict(self) -> dict[str, Any]:
        return {'prototypes': self.prototypes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.prototypes = dict(state['prototypes'])
