# Seven tasks of ten classes in the authors' order, 32 images per class on average, the very images
# that their code draws.
scenario = dict(
    class_order=dict(seed=123),
    tasks=[10, 10, 10, 10, 10, 10, 10],
    forget=dict(shots=32, authors_seed=123),
    retain=dict(shots=32, authors_seed=123),
)
