# GS-LoRA forgets six of ten garments in three tasks; groups must earn their life:
#   python tools/train.py configs/garments/gs-lora_deformable-detr_mobilenetv2_80s_garments-3tasks.py
_base_ = [
    '../_base_/datasets/garments.py',
    '../_base_/models/deformable-detr_mobilenetv2.py',
    # Which classes go, in which order, and how many images each stream draws.
    '../_base_/scenarios/garments_3tasks.py',
    # 80 optimiser steps a task; the optimiser and its schedule begin anew with each task.
    '../_base_/schedules/forget_80s.py',
    '../_base_/default_runtime.py',
]

# The trained detector: the reference of every figure, and the teacher where a method needs one.
load_from = 'mmforget://deformable-detr_mobilenetv2_garments'

# Images are small and mostly remembered: a process of their own costs more than it saves.
in_process = dict(num_workers=0, persistent_workers=False)
# Both streams, forget and retain, are drawn from this data set.
train_dataloader = dict(
    **in_process,
    dataset=dict(
        # No RandomFlip: each image goes through the frozen part of the detector once.
        pipeline=[
            dict(type='LoadImageFromFile', backend_args=None),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='PackDetInputs'),
        ]
    ),
)
val_dataloader = in_process

train_cfg = dict(
    # In the place of EpochBasedTrainLoop: one task after another, evaluated after each.
    type='mmforget.ContinualForgettingLoop',
    scenario={{_base_.scenario}},
    max_steps={{_base_.max_steps}},
    # What is minimised: the detector's own losses on the retain stream, plus
    # forget_weight * relu(bound - class loss on the forget stream).
    method=dict(
        type='mmforget.GSLoRA',
        forget_weight=0.3,
        # Reached at a score of e^-6 (0.5 * 6 = 3); what follows repairs the retain set.
        bound=3,
        # Only a forgotten object's own class counts: not the other classes, not the background.
        true_class_only=True,
    ),
    # MB for what the frozen part gives for an image, kept from step to step and task to task.
    trunk_cache_mb=1024,
    # MB for images, so that each is decoded once.
    image_cache_mb=128,
)

custom_hooks = [
    # What may move: W + (alpha / rank) * BA on the targets, B = 0 at first; all else is frozen.
    dict(
        type='mmforget.GroupSparseLoRAHook',
        rank=8,
        # Both linear layers of every transformer block's FFN; a block's four matrices are a group.
        targets='ffn',
        # Before a task each block is trained alone for 8 steps, from the output downwards. Those
        # that gain less than 0.7 of the best are dead; two in a row end the search. Trying all
        # blocks (no patience) takes longer and chooses the same ones.
        sparsity=dict(type='GroupTrial', strength=0.7, steps=8, patience=2),
    ),
    # After each task: detections before and after, AP by class, into work_dir/pictures.
    dict(type='mmforget.ForgettingPicturesHook'),
]

# CocoMetric plus AP_f, AP_o, AP_r, Drop and H; what they say is kept in work_dir/forgetting.json.
val_evaluator = dict(type='mmforget.ForgettingCocoMetric')
test_evaluator = dict(type='mmforget.ForgettingCocoMetric')
