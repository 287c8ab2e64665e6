# The garments of the Garments scenes by themselves: 28×28 pixels, ten classes, no download.
pipeline = [dict(type='LoadImageFromNDArray'), dict(type='mmforget.PackRecognition')]
train_dataloader = dict(
    batch_size=48,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='mmforget.GarmentSprites', split='train', pipeline=pipeline),
)
val_dataloader = dict(
    batch_size=250,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='mmforget.GarmentSprites', split='val', pipeline=pipeline),
)
test_dataloader = dict(
    batch_size=250,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='mmforget.GarmentSprites', split='test', pipeline=pipeline),
)
val_evaluator = dict(type='mmforget.ForgettingAccuracy')
test_evaluator = dict(type='mmforget.ForgettingAccuracy')
