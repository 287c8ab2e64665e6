# GS-LoRA in the few-shot setting of the 2025 release, corrected:
#   python tools/train.py configs/coco/gs-lora_deformable-detr_r50_30e_coco-7x10-fewshot.py
_base_ = ['../_base_/forgetting/gs-lora_30e_coco-7x10-fewshot.py']
train_cfg = dict(
    method=dict(
        type='mmforget.GSLoRA', forget_weight=[0.15, 0.15, 0.35, 0.6, 0.15, 0.2, 0.2], bound=15
    )
)
