# The same for detectors whose objects have many places or proposals each: a weaker push for longer.
_base_ = ['./gs-lora_80s_garments-3tasks.py']
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile', backend_args=None),
            dict(type='LoadAnnotations', with_bbox=True),
            # The retain stream has four variants of an image, each of which is remembered.
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ]
    )
)
train_cfg = dict(
    max_steps=400,
    # A box head learns 400 images by heart, even if nothing is forgotten: half of all are retained,
    # drawn anew for each task; and it forgets the 64 by heart rather than their class.
    scenario=dict(
        forget=dict(images=1000), retain=dict(images=2000, recurring=False, augmentations=4)
    ),
    method=dict(forget_weight=0.1, true_class_only=True, bound_each=True),
)
