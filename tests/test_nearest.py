from mmforget.nearest import did_you_mean

CLASSES = ('bag', 'Sneaker', 'ankle boot')


def test_the_nearest_names_whatever_their_case():
    assert did_you_mean('sneeker', CLASSES) == " Did you mean 'Sneaker'?"
    assert did_you_mean('BAG', CLASSES) == " Did you mean 'bag'?"


def test_nothing_where_no_name_is_near():
    assert did_you_mean('giraffe', CLASSES) == ''
    assert did_you_mean(7, ()) == ''
