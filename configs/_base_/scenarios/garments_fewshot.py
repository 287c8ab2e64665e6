# The continual tasks with eight images of each class, forgotten or retained.
scenario = dict(
    class_order=dict(seed=123),
    tasks=[3, 3, 2],
    forget=dict(shots=8, balanced=True, batch_size=8, augmentations=1),
    retain=dict(shots=8, balanced=True, batch_size=8, augmentations=1, recurring=True),
)
