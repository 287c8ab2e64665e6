# 1 % of the classes go at once, the last ones of the authors' order.
scenario = dict(
    class_order=dict(seed=123),
    tasks=[0.01],
    forget=dict(ratio=0.1, authors_seed=123),
    retain=dict(ratio=0.1, authors_seed=123),
)
