# Eight of ten garments go in tasks of three, three and two, in the order of the authors' seed; each
# stream has a tenth of the images that show its classes.
scenario = dict(
    class_order=dict(seed=123),
    tasks=[3, 3, 2],
    # One variant of each image, and for all tasks the same replay buffer: what is frozen sees an
    # image once.
    forget=dict(ratio=0.1, batch_size=8, augmentations=1),
    retain=dict(ratio=0.1, batch_size=8, augmentations=1, recurring=True),
)
