# The continual tasks where no data are left of one retained class (coat): AP_m. On images of other
# classes its objects are background.
_base_ = ['./garments_continual.py']
scenario = dict(missing=1)
