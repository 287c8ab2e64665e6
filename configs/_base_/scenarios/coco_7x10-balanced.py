# The same tasks with 32 images of each class, of rare ones too.
scenario = dict(
    class_order=dict(seed=123),
    tasks=[10, 10, 10, 10, 10, 10, 10],
    forget=dict(shots=32, balanced=True),
    retain=dict(shots=32, balanced=True),
)
