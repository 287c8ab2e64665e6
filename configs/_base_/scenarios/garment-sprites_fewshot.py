# The same with four images of each class.
scenario = dict(
    class_order=dict(seed=123),
    tasks=[2, 2, 2, 2],
    forget=dict(shots=4, balanced=True, batch_size=4, augmentations=1),
    retain=dict(shots=4, balanced=True, batch_size=4, augmentations=1),
)
