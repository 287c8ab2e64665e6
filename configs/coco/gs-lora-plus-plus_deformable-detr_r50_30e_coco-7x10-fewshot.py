# GS-LoRA++ in the few-shot setting of the 2025 release; the pull, which the paper has, is off there:
#   python tools/train.py configs/coco/gs-lora-plus-plus_deformable-detr_r50_30e_coco-7x10-fewshot.py
_base_ = ['../_base_/forgetting/gs-lora_30e_coco-7x10-fewshot.py']
train_cfg = dict(
    method=dict(
        type='mmforget.GSLoRAPlusPlus',
        forget_weight=[0.15, 0.15, 0.35, 0.6, 0.15, 0.2, 0.2],
        bound=15,
        prototypes='head',
        prototype_bound=18,
        push=0.005,
        pull=0.0,
    )
)
