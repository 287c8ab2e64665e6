"""Tap for classifiers: an image is one query, and its class the one object that it matches."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmforget.registry import TAPS
from mmforget.structures import StreamOutput
from mmforget.taps.base import Stream, StreamOptions
from mmforget.taps.feature_tap import FeatureTap


@TAPS.register_module(name='ViTClassifier')
class ClassifierTap(FeatureTap):
    """Reads models with ``extract_feat`` that gives embeddings, and a ``head`` that scores them."""

    fields = frozenset({'losses', 'logits', 'embeddings', 'halfway', 'matches', 'targets'})

    def class_heads(self) -> list[nn.Module]:
        return []

    def class_rows(self) -> Tensor:
        head = self.detector.head
        return getattr(head, 'fc', head).weight

    def check(self, options: StreamOptions) -> None:
        """Every image is matched, and a softmax counts its true class alone."""
        if options.background:
            raise TypeError(
                f'{type(self.detector).__name__} knows no background that a forgotten image could '
                "be labelled with. Take another relabelling: labels='random'."
            )

    def forward(
        self, inputs: Tensor, data_samples: Sequence[Any], streams: Mapping[str, Stream]
    ) -> dict[str, StreamOutput]:
        asked = [name for name, stream in streams.items() if stream.options.halfway]
        if not asked:
            return super().forward(inputs, data_samples, streams)
        blocks = self.detector.backbone.blocks
        seen: list[Tensor] = []
        handle = blocks[len(blocks) // 2 - 1].register_forward_hook(
            lambda module, given, tokens: seen.append(tokens)
        )
        try:  # The cache knows nothing of what lies halfway.
            features = self.detector.extract_feat(inputs)
        finally:
            handle.remove()
        outputs = {
            name: self._stream_output(stream, inputs, features, data_samples)
            for name, stream in streams.items()
        }
        for name in asked:
            outputs[name].halfway = seen[0][streams[name].images]
        return outputs

    def _stream_output(
        self,
        stream: Stream,
        inputs: Tensor,
        features: Sequence[Tensor],
        data_samples: Sequence[Any],
    ) -> StreamOutput:
        samples = data_samples[stream.images]
        embeddings = features[0][stream.images]
        labels = torch.cat([sample.gt_label for sample in samples]).to(embeddings.device)
        logits = self.detector.head(embeddings)  # Without labels a margin does not count.
        losses = {}
        if stream.options.losses:
            harder = self.detector.head(embeddings, labels).float()
            if stream.options.log_odds:
                loss = _minus_log_odds(harder, labels)
            else:
                loss = cross_entropy(harder, labels, reduction='none')
            if stream.options.bound is not None:
                loss = loss.clamp(max=stream.options.bound)
            losses['loss_cls'] = loss.mean()
        pair = labels.new_zeros(1, 2)
        return StreamOutput(
            losses=losses,
            targets=list(samples),
            logits=logits[:, None],
            embeddings=embeddings[:, None],
            matches=[pair] * len(samples),
            sigmoid=False,
        )


def _minus_log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """Of each image's class against all others: (N, C) and (N,) -> (N,), of any sign."""
    true = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, labels[:, None], True)
    others = logits.masked_fill(true, -torch.inf).logsumexp(dim=1)
    return others - logits[true]
