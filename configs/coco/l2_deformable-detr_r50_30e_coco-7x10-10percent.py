# L2 with a tenth of the images, as in the CVPR paper: 16 + 16 images a step:
#   python tools/train.py configs/coco/l2_deformable-detr_r50_30e_coco-7x10-10percent.py
_base_ = ['./l2_deformable-detr_r50_30e_coco-7x10-fewshot.py']
train_dataloader = dict(batch_size=16)
auto_scale_lr = dict(base_batch_size=16)
optim_wrapper = dict(
    optimizer=dict(lr=3e-4), paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=1 / 15)})
)
train_cfg = dict(
    scenario=dict(
        forget=dict(shots=None, ratio=0.1),
        retain=dict(shots=None, ratio=0.1),
    )
)
