# 30 % of the classes go at once.
scenario = dict(
    class_order=dict(seed=123),
    tasks=[0.3],
    forget=dict(ratio=0.1, batch_size=8, augmentations=1),
    retain=dict(ratio=0.1, batch_size=8, augmentations=1),
)
