# Six of ten garments go in three tasks; the retain stream is 10 % of the training images.
scenario = dict(
    tasks=[['bag', 'sneaker'], ['trouser', 'sandal'], ['dress', 'shirt']],
    # One variant of each image, and for all tasks the same replay buffer: what is frozen sees an
    # image once.
    forget=dict(images=64, batch_size=8, augmentations=1),
    retain=dict(images=400, batch_size=8, augmentations=1, recurring=True),
)
