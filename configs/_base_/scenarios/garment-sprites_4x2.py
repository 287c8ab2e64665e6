# The paper's four tasks: a fifth of the classes each, a tenth of the images.
scenario = dict(
    class_order=dict(seed=123),
    tasks=[2, 2, 2, 2],
    forget=dict(ratio=0.1, augmentations=1),
    retain=dict(ratio=0.1, augmentations=1),
)
