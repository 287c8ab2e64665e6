# The same as the authors draw: eight times as many images as classes, in which common classes
# dominate, and the same ones for every seed.
scenario = dict(
    class_order=dict(seed=123),
    tasks=[3, 3, 2],
    forget=dict(shots=8, authors_seed=123, batch_size=8, augmentations=1),
    retain=dict(shots=8, authors_seed=123, batch_size=8, augmentations=1),
)
