# GS-LoRA with a tenth of the images, as in the CVPR paper: 16 + 16 images a step:
#   python tools/train.py configs/coco/gs-lora_deformable-detr_r50_30e_coco-7x10-10percent.py
_base_ = ['./gs-lora_deformable-detr_r50_30e_coco-7x10-fewshot.py']
train_dataloader = dict(batch_size=16)
auto_scale_lr = dict(base_batch_size=16)
train_cfg = dict(
    method=dict(forget_weight=[0.015, 0.03, 0.14, 0.13, 0.13, 0.15, 0.15]),
    scenario=dict(
        forget=dict(shots=None, ratio=0.1),
        retain=dict(shots=None, ratio=0.1),
    ),
)
