"""Taps for DETR-likes: DETR, Conditional DETR, DAB-DETR and Deformable DETR."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from mmdet.models.detectors.base_detr import DetectionTransformer
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps
from torch import Tensor, nn
from torch.nn.functional import one_hot

from mmforget.registry import TAPS
from mmforget.structures import StreamOutput
from mmforget.taps.base import Stream, StreamOptions, Tap
from mmforget.taps.class_loss import counting
from mmforget.taps.detr_trunk import DETRTrunk
from mmforget.taps.feature_trunk import FEATURES
from mmforget.taps.matching import can_match_at_once, targets_at_once
from mmforget.taps.own_shapes import own_shapes
from mmforget.taps.replaced import replaced
from mmforget.taps.stages import Stage
from mmforget.taps.trunk_cache import TrunkCache

_IGNORED_OVERLAP = 0.5


class _TargetRecorder:
    """Records the matching of every image and edits the label weights before the class loss.

    MMDetection's head matches inside its loss and keeps the result to itself; matching again
    outside would double the cost of the Hungarian assignment.

    Args:
        ignored: Boxes to ignore, one tensor (N, 4) per image in absolute x1, y1, x2, y2.
        options: What the class loss counts; by default everything.
        sigmoid: Whether the class loss has a weight for each class, as that of sigmoids has.
    """

    def __init__(
        self,
        ignored: Sequence[Tensor],
        options: StreamOptions | None = None,
        sigmoid: bool = True,
    ) -> None:
        self.ignored = ignored
        self.options = options or StreamOptions()
        self.sigmoid = sigmoid
        self.assigned: list[Tensor] = []

    def record(self, assignment: Any) -> Any:
        self.assigned.append(assignment.gt_inds)
        return assignment

    def edit(
        self,
        scores: Sequence[Tensor],
        boxes: Sequence[Tensor],
        metas: Sequence[dict],
        targets: tuple,
    ) -> tuple:
        images = len(boxes)
        edited, all_labels = [], []
        classes = scores[0].shape[-1]
        background = classes if self.sigmoid else classes - 1
        for labels, weights, of_query, predicted, ignored, meta in zip(
            *targets[:2], self.assigned[-images:], boxes, self.ignored, metas, strict=True
        ):
            unmatched = of_query <= 0
            if self.options.true_class_only and self.sigmoid:
                # Background is the label after the last class; its column is cut off.
                weights = weights[:, None] * one_hot(labels, classes + 1)[:, :classes]
            elif self.options.matched_only or self.options.true_class_only:
                weights = weights.masked_fill(unmatched, 0)
            elif len(ignored):
                height, width = meta['img_shape'][:2]
                scale = predicted.new_tensor([width, height, width, height])
                overlap = bbox_overlaps(
                    bbox_cxcywh_to_xyxy(predicted.detach()) * scale, ignored, mode='iou'
                )
                over_ignored = overlap.max(dim=1).values > _IGNORED_OVERLAP
                weights = weights.masked_fill(unmatched & over_ignored, 0)
            edited.append(weights)
            if self.options.background:
                labels = torch.where(unmatched, labels, labels.new_tensor(background))
            all_labels.append(labels)
        return (all_labels, edited, *targets[2:])

    def matches(self, images: int) -> list[Tensor]:
        """(query, object) pairs of the last decoder layer, one (M, 2) tensor per image."""
        pairs = []
        for of_query in self.assigned[-images:]:
            query = torch.nonzero(of_query > 0).flatten()
            pairs.append(torch.stack([query, of_query[query] - 1], dim=1))
        return pairs


def _counting(head: nn.Module, options: StreamOptions) -> AbstractContextManager[None]:
    """For what weights cannot tell: a bound for each query, some of the classes of a softmax."""
    softmax = not head.loss_cls.use_sigmoid
    needed = options.bound is not None or options.log_odds or (options.true_class_only and softmax)
    return counting([head], options, mean_over_matched=softmax) if needed else nullcontext()


@contextmanager
def _recording(head: nn.Module, recorder: _TargetRecorder) -> Iterator[None]:
    """Lets ``recorder`` see the assigner's results and edit the head's targets."""
    assign, get_targets = head.assigner.assign, head.get_targets

    def recorded_assign(*args, **kwargs):
        return recorder.record(assign(*args, **kwargs))

    def edited_targets(scores, boxes, instances, metas):
        return recorder.edit(scores, boxes, metas, get_targets(scores, boxes, instances, metas))

    def edited_targets_at_once(scores, boxes, instances, metas):
        if not can_match_at_once(head, instances):
            return edited_targets(scores, boxes, instances, metas)
        targets, assigned = targets_at_once(head, scores, boxes, instances, metas)
        recorder.assigned += assigned
        return recorder.edit(scores, boxes, metas, targets)

    head.assigner.assign, head.get_targets = recorded_assign, edited_targets_at_once
    try:
        yield
    finally:
        del head.assigner.assign, head.get_targets


@TAPS.register_module(name='DetectionTransformer')
class DETRTap(Tap):
    """Reads mmdet's ``DetectionTransformer`` detectors whose head has ``loss_by_feat``."""

    fields = frozenset({'losses', 'logits', 'boxes', 'embeddings', 'matches', 'targets'})
    one_to_one = True
    #: The ``forward_transformer`` that the tap takes apart.
    known_forward = DetectionTransformer.forward_transformer

    def __init__(self, detector: nn.Module, cache: TrunkCache | None = None) -> None:
        if type(detector).forward_transformer is not type(self).known_forward:
            raise TypeError(
                f'{type(detector).__name__} has a forward of its own (text, query groups), which '
                'mmforget cannot read yet. Single- and two-stage Deformable DETR, DETR, '
                'Conditional DETR, DAB-DETR and DINO work.'
            )
        super().__init__(detector, cache)
        self._trunk = DETRTrunk(detector, cache, self._head_parts_below)

    def stages(self) -> dict[str, Stage]:
        return self._trunk.stages()

    def sees_padding(self) -> bool:
        # Backbone, neck and the scaling of masks to the levels do, and proposals out of padding.
        proposals = getattr(self.detector, 'as_two_stage', False)
        return proposals or 'encoder' not in self.frozen_stages()

    def remembering(self, batch_size: int | None = None) -> AbstractContextManager[None]:
        return nullcontext() if self.cache is None else self._trunk.answering(batch_size)

    def looks_ahead(self) -> bool:
        several = self.cache is not None and (self.cache.images_at_once or 1) > 1
        return several and bool(self.frozen_stages())

    def look_ahead(self, inputs: Tensor, data_samples: Sequence[Any]) -> list[bytes]:
        return self._trunk.fill(inputs, data_samples, self.frozen_stages()[-1])

    def remembers(self, image: bytes) -> bool:
        return self._trunk.memory.knows(self.frozen_stages()[-1], image)

    def _head_parts_below(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """The parts of the head that a decoder's inputs depend on.

        Returns:
            Those that all layers' inputs depend on; for each layer the one that makes the next
            layer's reference points out of its output.
        """
        # DAB-DETR refines its boxes with the head; the others are spared nothing dear by this.
        return [self.detector.bbox_head], []

    def forward(
        self, inputs: Tensor, data_samples: Sequence[Any], streams: Mapping[str, Stream]
    ) -> dict[str, StreamOutput]:
        head_inputs = self._head_inputs(inputs, data_samples)
        hidden_states = head_inputs.pop('hidden_states')
        encoder_outputs = self._pop_encoder_outputs(head_inputs)
        if not any(stream.options.auxiliary for stream in streams.values()):
            hidden_states = hidden_states[-1:]
        logits, boxes = self._run_head(hidden_states, head_inputs)
        # SciPy's matching and mmcv's focal loss know no bfloat16, and costs overflow in float16.
        with torch.autocast(inputs.device.type, enabled=False):
            outputs = [_single(x) for x in (hidden_states, logits, boxes)]
            encoder_outputs = tuple(x if x is None else _single(x) for x in encoder_outputs)
            return {
                name: self._stream_output(stream, *outputs, encoder_outputs, data_samples)
                for name, stream in streams.items()
            }

    def _run_head(
        self, hidden_states: Tensor, head_inputs: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Logits and boxes of the last decoder layers.

        Args:
            hidden_states: (L, B, Q, C) of all layers, or (1, B, Q, C) of the last one.
            head_inputs: What the head gets besides, of all layers.
        """
        return self.detector.bbox_head(hidden_states, **head_inputs)

    def _head_inputs(self, inputs: Tensor, data_samples: Sequence[Any]) -> dict[str, Any]:
        """What the head is called with; frozen stages without gradient, from the cache if any."""
        frozen = self.frozen_stages()
        alike = all(shape == inputs.shape[-2:] for shape in own_shapes(inputs, data_samples))
        if self.leader is not None and not alike:
            theirs = self.leader.frozen_stages()
            # A cut within backbone or neck leaves each image alone in all of them.
            frozen = [name for name in frozen if name in theirs or (theirs and name == FEATURES)]
        if frozen and not (self.cache is None and alike):
            return self._trunk.head_inputs(inputs, data_samples, frozen)
        with torch.set_grad_enabled(torch.is_grad_enabled() and FEATURES not in frozen):
            features = self.detector.extract_feat(inputs)
        return self.detector.forward_transformer(features, data_samples)

    def _pop_encoder_outputs(self, head_inputs: dict[str, Any]) -> tuple[Tensor | None, ...]:
        """Takes what ``loss_by_feat`` wants between the predictions and the ground truth."""
        return ()

    def _stream_output(
        self,
        stream: Stream,
        hidden_states: Tensor,
        logits: Tensor,
        boxes: Tensor,
        encoder_outputs: tuple[Tensor | None, ...],
        data_samples: Sequence[Any],
    ) -> StreamOutput:
        head = self.detector.bbox_head
        samples = data_samples[stream.images]
        targets = [sample.gt_instances for sample in samples]
        metas = [sample.metainfo for sample in samples]
        ignored = [
            sample.ignored_instances.bboxes
            if 'ignored_instances' in sample
            else logits.new_empty(0, 4)
            for sample in samples
        ]
        layers = slice(None) if stream.options.auxiliary else slice(-1, None)
        of_encoder = tuple(x if x is None else x[stream.images] for x in encoder_outputs)
        ignored = [getattr(of_image, 'tensor', of_image) for of_image in ignored]
        if not stream.options.losses:
            return StreamOutput(
                losses={},
                logits=logits[-1, stream.images],
                boxes=boxes[-1, stream.images],
                embeddings=hidden_states[-1, stream.images],
                targets=targets,
                sigmoid=head.loss_cls.use_sigmoid,
            )
        # Proposals are of no class, so "matched queries only" is no matter of theirs.
        with _recording(head, _TargetRecorder(ignored)):
            losses = self._proposal_losses(of_encoder, targets, metas)
        recorder = _TargetRecorder(ignored, stream.options, head.loss_cls.use_sigmoid)
        with _recording(head, recorder), _counting(head, stream.options):
            losses |= self._decoder_losses(
                logits[layers, stream.images], boxes[layers, stream.images], targets, metas
            )
        return StreamOutput(
            losses=losses,
            logits=logits[-1, stream.images],
            boxes=boxes[-1, stream.images],
            embeddings=hidden_states[-1, stream.images],
            matches=recorder.matches(len(samples)),
            targets=targets,
            sigmoid=head.loss_cls.use_sigmoid,
        )

    def class_rows(self) -> Tensor:
        head = self.detector.bbox_head
        # Deformable DETR has a branch for each layer, the last one for proposals if it has two
        # stages; the others have one for all.
        branches = getattr(head, 'cls_branches', None)
        if branches is None:
            layer = head.fc_cls
        else:
            layer = branches[len(self.detector.decoder.layers) - 1]
        return layer.weight[: head.num_classes]

    def _decoder_losses(
        self, logits: Tensor, boxes: Tensor, targets: list[Any], metas: list[dict]
    ) -> dict[str, Tensor]:
        return self.detector.bbox_head.loss_by_feat(logits, boxes, targets, metas)

    def _proposal_losses(
        self, encoder_outputs: tuple[Tensor | None, ...], targets: list[Any], metas: list[dict]
    ) -> dict[str, Tensor]:
        """Losses of a two-stage detector's proposals, by names that start with ``enc_``."""
        return {}


@TAPS.register_module(name='DeformableDETR')
class DeformableDETRTap(DETRTap):
    """Deformable DETR, single-stage or two-stage, with or without box refinement."""

    def _head_parts_below(self) -> tuple[list[nn.Module], list[nn.Module]]:
        detector, head = self.detector, self.detector.bbox_head
        layers = len(detector.decoder.layers)
        of_all = []
        if detector.as_two_stage:
            of_all = [head.cls_branches[layers], head.reg_branches[layers]]
        return of_all, list(head.reg_branches[:layers]) if detector.with_box_refine else []

    def _run_head(
        self, hidden_states: Tensor, head_inputs: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        head = self.detector.bbox_head
        first = len(self.detector.decoder.layers) - len(hidden_states)
        if not first:
            return head(hidden_states, **head_inputs)
        # The head counts layers from the first one that it is given.
        references = head_inputs['references'][first:]
        with (
            replaced(head, 'cls_branches', head.cls_branches[first:]),
            replaced(head, 'reg_branches', head.reg_branches[first:]),
        ):
            return head(hidden_states, references)

    def _pop_encoder_outputs(self, head_inputs: dict[str, Any]) -> tuple[Tensor | None, ...]:
        return (
            head_inputs.pop('enc_outputs_class', None),
            head_inputs.pop('enc_outputs_coord', None),
        )

    def _decoder_losses(
        self, logits: Tensor, boxes: Tensor, targets: list[Any], metas: list[dict]
    ) -> dict[str, Tensor]:
        return self.detector.bbox_head.loss_by_feat(logits, boxes, None, None, targets, metas)

    def _proposal_losses(
        self, encoder_outputs: tuple[Tensor | None, ...], targets: list[Any], metas: list[dict]
    ) -> dict[str, Tensor]:
        if encoder_outputs[0] is None:
            return {}
        losses = self.detector.bbox_head.loss_by_feat_single(
            *encoder_outputs, [_class_agnostic(t) for t in targets], metas
        )
        return dict(zip(('enc_loss_cls', 'enc_loss_bbox', 'enc_loss_iou'), losses, strict=True))


@TAPS.register_module(name='DABDETR')
class DABDETRTap(DETRTap):
    """DAB-DETR, whose head gets a reference box for every layer."""

    def _run_head(
        self, hidden_states: Tensor, head_inputs: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        references = head_inputs['references'][-len(hidden_states) :]
        return self.detector.bbox_head(hidden_states, references)


def _single(values: Tensor) -> Tensor:
    """At least single precision."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _class_agnostic(instances: Any) -> Any:
    """The same boxes, all with label 0: how two-stage proposals are supervised."""
    return type(instances)(bboxes=instances.bboxes, labels=torch.zeros_like(instances.labels))
