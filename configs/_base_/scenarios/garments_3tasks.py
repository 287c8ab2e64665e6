# Six of ten garments go in three tasks; the retain stream is 10 % of the training images.
scenario = dict(
    tasks=[['bag', 'sneaker'], ['trouser', 'sandal'], ['dress', 'shirt']],
    forget=dict(images=64, batch_size=8),
    retain=dict(images=400, batch_size=8),
)
