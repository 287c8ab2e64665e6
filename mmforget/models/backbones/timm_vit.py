"""timm's vision transformers as backbones of MMDetection's detectors."""

import inspect
from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule, initialize
from torch import Tensor, nn
from torch.nn.functional import pad

from mmforget.models.backbones.timm_weights import load_timm_weights
from mmforget.models.backbones.windowed_attention import (
    attend_in_windows,
    default_global_blocks,
    grid_of,
)
from mmforget.models.timm_import import import_timm
from mmforget.nearest import did_you_mean
from mmforget.registry import MODELS

_HUB = 'timm://'
# What lets a model take images of any size, by family; the first that the family knows is taken.
# Swin would otherwise leave its shifts out wherever the image it was made for has one window.
_ANY_SIZE = (
    {'dynamic_img_size': True, 'always_partition': True},
    {'strict_img_size': False, 'always_partition': True},
    {'dynamic_img_size': True},
)


@MODELS.register_module()
class TimmViT(BaseModule):
    """A vision transformer of timm on images of any size.

    Plain ones (``vit_*``, ``deit3_*``, ``eva02_*``, those of DINOv2 with registers) give maps of
    one resolution, one for each block that is asked for; hierarchical ones (``swin*``) one map for
    each stage. Position embeddings are resampled to the image, by timm.

    With ``window_size``, most blocks of a plain one attend within windows, as in ViTDet (arXiv
    2203.16527, section 3).

    Args:
        model_name: timm's name, such as ``'vit_tiny_patch16_224'``.
        pretrained: ``True`` fetches weights from timm's hub; a text is the path of a file with
            weights in any of the forms that timm reads. They are loaded by ``init_weights``, and
            not at all where the loop has a checkpoint of the whole detector.
        img_size: Side or (height, width) of the image that the learnt position embeddings are
            made for; ``None`` is the model's own.
        out_indices: Blocks of a plain transformer, or stages of a hierarchical one, whose output
            is given; negative ones count from the end. ``None``: the last block, or all stages.
        final_norm: Whether a plain transformer's maps go through its final norm; those that norm
            behind their pooling alone have none.
        window_size: Side of the windows in tokens; 0 lets every block see all tokens.
        global_blocks: Blocks that see all tokens nevertheless; by default the last of each quarter.
        drop_path_rate: Stochastic depth.
        timm_args: Further arguments of timm's model. With a ``patch_size`` or ``in_chans`` of its
            own, the patch embedding is not among the weights that ``pretrained`` loads.
        init_cfg: MMEngine's; not beside ``pretrained``.

    Attributes:
        out_channels: Channels of each map.
        strides: Pixels between neighbours of each map.
        vit: timm's model.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm does not know the model, it cannot take images of any size, or an
            argument does not fit it.
    """

    def __init__(
        self,
        model_name: str,
        pretrained: bool | str = False,
        img_size: int | Sequence[int] | None = None,
        out_indices: Sequence[int] | None = None,
        final_norm: bool = False,
        window_size: int = 0,
        global_blocks: Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
        timm_args: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        if pretrained and init_cfg:
            raise ValueError(
                f'TimmViT got pretrained={pretrained!r} and init_cfg={init_cfg!r}; expected one '
                'of the two.'
            )
        if pretrained:
            # In MMEngine's own form, which whoever loads a whole checkpoint knows how to skip.
            source = 'hub' if pretrained is True else pretrained
            init_cfg = {'type': 'Pretrained', 'checkpoint': f'{_HUB}{source}'}
        super().__init__(init_cfg)
        self.model_name = model_name
        self.final_norm = final_norm
        self.window_size = window_size
        self._model_args = dict(timm_args or {})
        if img_size is not None:
            size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
            self._model_args['img_size'] = size
        self.vit, any_size = _build(
            model_name, {**self._model_args, 'drop_path_rate': drop_path_rate}
        )
        self._model_args |= any_size
        self.is_plain = hasattr(self.vit, 'blocks')
        parts = self.vit.blocks if self.is_plain else self.vit.layers
        if out_indices is None:
            out_indices = (-1,) if self.is_plain else range(len(parts))
        self.out_indices = _absolute(out_indices, len(parts), model_name)
        info = [self.vit.feature_info[index] for index in self.out_indices]
        self.out_channels = tuple(level['num_chs'] for level in info)
        self.strides = tuple(level['reduction'] for level in info)
        self._set_windows(window_size, global_blocks, len(parts))
        # What comes after the last map would have weights that no loss reaches.
        self.vit.prune_intermediate_layers(
            list(self.out_indices), prune_norm=not (final_norm and self.is_plain)
        )

    def _set_windows(
        self, window_size: int, global_blocks: Sequence[int] | None, depth: int
    ) -> None:
        if not window_size:
            if global_blocks is not None:
                raise ValueError(
                    f'TimmViT got global_blocks={global_blocks!r} without window_size: every '
                    'block sees all tokens. Give window_size, or leave global_blocks out.'
                )
            return
        takes_mask = 'attn_mask' in inspect.signature(self.vit.forward_intermediates).parameters
        if isinstance(window_size, bool) or not isinstance(window_size, int) or window_size < 0:
            raise ValueError(
                f'TimmViT got window_size={window_size!r}; expected a whole number of tokens, 0 '
                'for none.'
            )
        if not self.is_plain or not takes_mask:
            raise ValueError(
                f'TimmViT got window_size={window_size} for {self.model_name}, whose attention '
                'cannot be put into windows: it has its own, or it takes no mask. Set '
                'window_size=0.'
            )
        if global_blocks is None:
            global_blocks = default_global_blocks(depth)
        global_blocks = _absolute(global_blocks, depth, self.model_name, 'global_blocks')
        prefix = getattr(self.vit, 'num_prefix_tokens', 0)
        attend_in_windows(self.vit.blocks, window_size, global_blocks, prefix)

    def init_weights(self) -> None:
        """Loads pre-trained weights if there are to be any; else those that timm drew stay.

        Raises:
            RuntimeError: They cannot be fetched or read.
        """
        checkpoint = (self.init_cfg or {}).get('checkpoint', '')
        if checkpoint.startswith(_HUB):
            load_timm_weights(
                self.vit,
                self.model_name,
                checkpoint.removeprefix(_HUB),
                self._model_args,
            )
        elif self.init_cfg:
            initialize(self, self.init_cfg)
        self._is_init = True

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Feature maps.

        Args:
            images: (B, 3, H, W); filled up with zeros to whole patches.

        Returns:
            One map for each of ``out_indices``, (B, C, H / stride, W / stride), rounded up.
        """
        options: dict[str, Any] = {}
        if self.is_plain:
            patch = self.vit.patch_embed.patch_size
            rows, columns = (-(-images.shape[2 + side] // patch[side]) for side in range(2))
            filling = (columns * patch[1] - images.shape[3], rows * patch[0] - images.shape[2])
            images = pad(images, (0, filling[0], 0, filling[1])) if any(filling) else images
            options['norm'] = self.final_norm
            if self.window_size:
                options['attn_mask'] = grid_of(rows, columns, images)
        maps = self.vit.forward_intermediates(
            images,
            indices=list(self.out_indices),
            stop_early=True,
            intermediates_only=True,
            **options,
        )
        # MMCV's operators read memory as if the channels came first.
        return tuple(level.contiguous() for level in maps)


def _build(name: str, model_args: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """A model of timm without a classifier, and what made it take images of any size."""
    timm = import_timm()
    if not timm.is_model(name.split('.')[0]):
        known = timm.list_models('*vit*') + timm.list_models('*eva*') + timm.list_models('swin*')
        raise ValueError(
            f'timm {timm.__version__} knows no model {name!r}.{did_you_mean(name, known)} '
            "timm.list_models('vit*') lists them."
        )
    refusals = []
    for any_size in _ANY_SIZE:
        try:
            model = timm.create_model(
                name, pretrained=False, num_classes=0, **any_size, **model_args
            )
        except TypeError as error:
            refusals.append(str(error))
            continue
        if hasattr(model, 'forward_intermediates') and (
            hasattr(model, 'blocks') or hasattr(model, 'layers')
        ):
            return model, any_size
    raise ValueError(
        f'{name} cannot be built as a transformer for images of any size ('
        + '; '.join(dict.fromkeys(refusals))
        + '). Expected a plain vision transformer (vit_*, deit3_*, eva02_*, '
        'vit_*_reg4_dinov2) or swin*; check timm_args, too.'
    )


def _absolute(
    indices: Sequence[int], number: int, name: str, argument: str = 'out_indices'
) -> tuple[int, ...]:
    """Indices counted from the front, in rising order."""
    for index in indices:
        if not isinstance(index, int) or not -number <= index < number:
            raise ValueError(
                f'TimmViT got {argument}={indices!r} for {name}; expected whole numbers from '
                f'{-number} to {number - 1}: it has {number} blocks or stages.'
            )
    return tuple(sorted({index % number for index in indices}))
