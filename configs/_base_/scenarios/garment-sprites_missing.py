# The same where no data are left of one retained class: Acc_m.
_base_ = ['./garment-sprites_4x2.py']
scenario = dict(missing=1)
