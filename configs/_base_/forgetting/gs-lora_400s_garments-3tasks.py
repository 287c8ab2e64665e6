# The same for detectors whose objects have many places or proposals each: a weaker push for longer.
_base_ = ['./gs-lora_80s_garments-3tasks.py']
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile', backend_args=None),
            dict(type='LoadAnnotations', with_bbox=True),
            # An image of the retain stream has four variants, each of which is remembered.
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ]
    )
)
train_cfg = dict(
    max_steps=400,
    scenario=dict(retain=dict(augmentations=4)),
    method=dict(forget_weight=0.1, true_class_only=True, bound_each=True),
)
