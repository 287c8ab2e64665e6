# The same tasks with a tenth of the images that show a stream's classes.
scenario = dict(
    class_order=dict(seed=123),
    tasks=[10, 10, 10, 10, 10, 10, 10],
    forget=dict(ratio=0.1, authors_seed=123),
    retain=dict(ratio=0.1, authors_seed=123),
)
